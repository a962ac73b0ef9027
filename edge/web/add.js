// Adding a camera in three steps: found or typed, its user and password, its picture seen. The device writes the file.

import { el, say } from "./dom.js";
import { Editor } from "./edit.js";

const JSON_POST = (value) => ({ method: "POST", body: JSON.stringify(value) });

export class AddView {
  constructor() {
    this.editor = new Editor("");
    // grows with everything that is typed
    this.turn = 0;
    this.place = field("Address", { autocomplete: "off", spellcheck: "false", placeholder: "192.168.1.20, or an address of RTSP", required: true });
    this.user = field("User name", { autocomplete: "off", spellcheck: "false" });
    this.password = field("Password", { type: "password", autocomplete: "off" });
    this.name = field("Name", { autocomplete: "off", spellcheck: "false", pattern: "[A-Za-z0-9_\\-]+", required: true });
    this.found = el("ul", { class: "found", "aria-label": "Cameras that answered" });
    this.status = el("p", { class: "muted", role: "status" });
    this.search = button("Look for cameras", () => this.find());
    this.show = button("Show its picture", () => this.look(), "primary");
    this.save = button("Add this camera", () => this.add(), "primary");
    this.picture = el("img", { alt: "What the camera sees now" });
    this.facts = el("p", { class: "muted" });
    this.third = el("fieldset", { hidden: true }, el("legend", { text: "3. Is it this one?" }), this.picture, this.facts,
      el("div", { class: "row" }, this.name.node, this.save));
    this.node = el("section", { class: "add", "aria-label": "Add a camera" }, el("h1", { text: "Add a camera" }),
      el("fieldset", {}, el("legend", { text: "1. Which camera?" }), el("div", { class: "row" }, this.place.node, this.search), this.found),
      el("fieldset", {}, el("legend", { text: "2. Who may see it?" }), el("div", { class: "row" }, this.user.node, this.password.node, this.show)),
      this.third, this.status, this.editor.form, this.editor.words);
    // another camera than the one that was seen is not added
    for (const { input } of [this.place, this.user, this.password]) input.addEventListener("input", () => this.forget());
    for (const { input } of [this.place, this.user, this.password]) onEnter(input, () => this.look());
    onEnter(this.name.input, () => this.add());
  }

  async find() {
    const answer = await this.wait(this.search, "Asking the network …", "api/cameras");
    if (answer === null) return;
    this.found.replaceChildren(...answer.cameras.map(({ place, name, hardware }) => el("li", {},
      button([name, hardware, new URL(place).host].filter(Boolean).join(" · "), () => this.choose(place)))));
    say(this.status, answer.cameras.length ? "" : "No ONVIF camera answers. Type the address of one.");
  }

  choose(place) {
    this.place.input.value = place;
    this.forget();
    this.user.input.focus();
  }

  async look() {
    if (!this.place.input.reportValidity()) return;
    this.forget();
    const turn = this.turn;
    const asked = { place: this.place.input.value.trim(), username: this.user.input.value, password: this.password.input.value };
    const answer = await this.wait(this.show, "Waiting for its picture …", "api/cameras/look", JSON_POST(asked));
    if (answer === null || turn !== this.turn) return;
    this.seen = answer.id;
    this.picture.src = `data:image/jpeg;base64,${answer.picture}`;
    this.name.input.value = answer.name;
    say(this.facts, [[answer.maker, answer.model].filter(Boolean).join(" "), `analysed: ${answer.size.join("×")}`,
      answer.record_source ? "its large picture is recorded at events" : ""].filter(Boolean).join(" · "));
    this.third.hidden = false;
    this.name.input.focus();
  }

  async add() {
    if (!this.seen || !this.name.input.reportValidity()) return;
    const wanted = { look: this.seen, name: this.name.input.value };
    if ((await this.wait(this.save, "Writing it into the file …", "api/cameras", JSON_POST(wanted))) === null) return;
    this.password.input.value = "";
    location.hash = "#/";
  }

  /** The device's answer, or null; the words say why. Meanwhile the button rests. */
  async wait(pressed, words, address, options) {
    pressed.disabled = true;
    say(this.status, words);
    const answer = await this.editor.ask(address, options);
    pressed.disabled = false;
    say(this.status, "");
    return answer;
  }

  forget() {
    this.turn += 1;
    this.seen = null;
    this.third.hidden = true;
  }

  // what the frame of the page asks of every view
  message() {}

  events() {}

  tick() {}

  close() {}
}

function field(words, props) {
  const input = el("input", props);
  return { input, node: el("label", { text: words }, input) };
}

function button(text, onclick, kind = "") {
  return el("button", { class: `button ${kind}`.trim(), type: "button", text, onclick });
}

function onEnter(input, act) {
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") act();
  });
}
