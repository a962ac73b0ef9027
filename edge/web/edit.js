// Asking the device for what stands in its configuration, and having it changed. Needs the operate token: the page's
// cookie only looks, so the token is asked for once and kept as long as the tab is open. A user's login is enough.

import { el, say } from "./dom.js";
import { t } from "./words.js";

const TOKEN = "operate-token";
let me = {};

/** Who looks at the page: a user who has logged in shows no token, and is told what it may not do. */
export function setMe(facts) {
  me = facts;
}

export class Editor {
  constructor(streamName) {
    this.address = `api/streams/${encodeURIComponent(streamName)}/drawn`;
    this.input = el("input", { type: "password", autocomplete: "current-password", "aria-label": t("token.name") });
    this.form = el("form", { class: "token-form", hidden: true, onsubmit: (event) => this.take(event) },
      el("label", { text: t("token.name") }, this.input), el("button", { class: "button primary", text: t("token.go") }));
    this.words = el("p", { class: "edit-words", role: "alert" });
    this.list = el("ul", { class: "version-list" });
    this.past = el("details", { class: "choices", ontoggle: () => this.past.open && this.showVersions() },
      el("summary", { text: t("versions.title") }), this.list);
    this.node = el("div", { class: "edit" }, this.form, this.words, this.past);
  }

  /** What is drawn in the file, or null; the words say why. */
  drawn() {
    return this.ask(this.address);
  }

  save(body) {
    return this.ask(this.address, { method: "PUT", body: JSON.stringify(body) });
  }

  async showVersions() {
    const answer = await this.ask("api/config/versions");
    if (answer === null) return;
    this.list.replaceChildren(...answer.versions.map(({ id, saved_at: at }) => el("li", {},
      el("time", { datetime: at, text: t("versions.before", { time: new Date(at).toLocaleString() }) }),
      el("button", { class: "button", type: "button", text: t("versions.restore"), "aria-label": t("versions.restore.what", { time: new Date(at).toLocaleString() }),
        onclick: () => this.restore(id) }))));
    if (!answer.versions.length) this.list.replaceChildren(el("li", { class: "muted", text: t("versions.none") }));
  }

  async restore(id) {
    if ((await this.ask("api/config/versions", { method: "POST", body: JSON.stringify({ restore: id }) })) === null) return;
    for (const key of Object.keys(localStorage)) if (key.startsWith("drawn:")) localStorage.removeItem(key);
    location.reload();
  }

  async ask(address, options = {}) {
    say(this.words, "");
    const token = sessionStorage.getItem(TOKEN);
    try {
      const answer = await fetch(address, { cache: "no-store", ...options, headers: { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) } });
      if (answer.ok) return await answer.json();
      if (me.kind === "user" && answer.status === 401) location.replace("/");
      if (me.kind !== "user" && (answer.status === 401 || answer.status === 403)) {
        sessionStorage.removeItem(TOKEN);
        say(this.words, token ? t("token.refused") : "");
        return (await this.askToken()) ? this.ask(address, options) : null;
      }
      say(this.words, (await answer.text()).trim());
    } catch {
      say(this.words, t("token.silent"));
    }
    return null;
  }

  askToken() {
    this.form.hidden = false;
    this.input.focus();
    return new Promise((resolve) => { this.given = resolve; });
  }

  take(event) {
    event.preventDefault();
    if (!this.input.value) return;
    sessionStorage.setItem(TOKEN, this.input.value);
    this.input.value = "";
    this.form.hidden = true;
    this.given?.(true);
  }
}
