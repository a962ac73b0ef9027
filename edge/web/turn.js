// Turning a camera to its presets. Needs the operate token, which is asked for at the first press.

import { el, say } from "./dom.js";
import { Editor } from "./edit.js";
import { t } from "./words.js";

export class TurnPanel {
  constructor(stream) {
    this.stream = stream;
    this.editor = new Editor(stream.name);
    this.address = `api/streams/${encodeURIComponent(stream.name)}/presets`;
    this.places = el("div", { class: "buttons" },
      el("button", { class: "button", type: "button", text: t("turn.show"), onclick: () => this.show() }));
    this.words = el("p", { class: "muted", role: "status" });
    this.node = el("section", { class: "panel", "aria-label": t("turn.title") }, el("h2", { text: t("turn.title") }),
      this.places, this.words, this.editor.form, this.editor.words);
  }

  async show() {
    const answer = await this.editor.ask(this.address);
    if (answer === null) return;
    this.places.replaceChildren(...answer.presets.map((name) => el("button", {
      class: "button", type: "button", text: name === answer.home ? t("turn.home", { name }) : name, onclick: () => this.go(name) })));
  }

  go(name) {
    return this.editor.ask(this.address, { method: "POST", body: JSON.stringify({ preset: name }) });
  }

  tick() {
    say(this.words, this.stream.stats.is_away ? t("turn.away") : "");
  }
}
