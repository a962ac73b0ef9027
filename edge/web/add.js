// Adding a camera in three steps: found or typed, its user and password, its picture seen. The device writes the file.

import { el, say } from "./dom.js";
import { Editor } from "./edit.js";
import { t } from "./words.js";

const JSON_POST = (value) => ({ method: "POST", body: JSON.stringify(value) });

export class AddView {
  constructor(store, source) {
    store.watch([]);
    // statistics go on; no picture is asked for
    source.watch([...store.streams.keys()].slice(0, 1), 1, false);
    this.editor = new Editor("");
    // grows with everything that is typed
    this.turn = 0;
    this.place = field(t("adding.address"), { autocomplete: "off", spellcheck: "false", placeholder: t("adding.address.example"), required: true });
    this.user = field(t("adding.user"), { autocomplete: "off", spellcheck: "false" });
    this.password = field(t("adding.password"), { type: "password", autocomplete: "off" });
    this.name = field(t("adding.name"), { autocomplete: "off", spellcheck: "false", pattern: "[A-Za-z0-9_\\-]+", required: true });
    this.found = el("ul", { class: "found", "aria-label": t("adding.found") });
    this.status = el("p", { class: "muted", role: "status" });
    this.search = button(t("adding.search"), () => this.find());
    this.show = button(t("adding.show"), () => this.look(), "primary");
    this.save = button(t("adding.save"), () => this.add(), "primary");
    this.picture = el("img", { alt: t("adding.picture") });
    this.facts = el("p", { class: "muted" });
    this.third = el("fieldset", { hidden: true }, el("legend", { text: t("adding.third") }), this.picture, this.facts,
      el("div", { class: "row" }, this.name.node, this.save));
    this.node = el("section", { class: "add", "aria-label": t("page.add") }, el("h1", { text: t("page.add") }),
      el("fieldset", {}, el("legend", { text: t("adding.first") }), el("div", { class: "row" }, this.place.node, this.search), this.found),
      el("fieldset", {}, el("legend", { text: t("adding.second") }), el("div", { class: "row" }, this.user.node, this.password.node, this.show)),
      this.third, this.status, this.editor.form, this.editor.words);
    // another camera than the one that was seen is not added
    for (const { input } of [this.place, this.user, this.password]) input.addEventListener("input", () => this.forget());
    for (const { input } of [this.place, this.user, this.password]) onEnter(input, () => this.look());
    onEnter(this.name.input, () => this.add());
  }

  async find() {
    const answer = await this.wait(this.search, t("adding.searching"), "api/cameras");
    if (answer === null) return;
    this.found.replaceChildren(...answer.cameras.map(({ place, name, hardware }) => el("li", {},
      button([name, hardware, new URL(place).host].filter(Boolean).join(" · "), () => this.choose(place)))));
    say(this.status, answer.cameras.length ? "" : t("adding.none"));
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
    const answer = await this.wait(this.show, t("adding.looking"), "api/cameras/look", JSON_POST(asked));
    if (answer === null || turn !== this.turn) return;
    this.seen = answer.id;
    this.picture.src = `data:image/jpeg;base64,${answer.picture}`;
    this.name.input.value = answer.name;
    say(this.facts, [[answer.maker, answer.model].filter(Boolean).join(" "), t("adding.analysed", { size: answer.size.join("×") }),
      answer.record_source ? t("adding.large") : ""].filter(Boolean).join(" · "));
    this.third.hidden = false;
    this.name.input.focus();
  }

  async add() {
    if (!this.seen || !this.name.input.reportValidity()) return;
    const wanted = { look: this.seen, name: this.name.input.value };
    if ((await this.wait(this.save, t("adding.saving"), "api/cameras", JSON_POST(wanted))) === null) return;
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
