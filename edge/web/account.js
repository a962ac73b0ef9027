// Who looks at the page: what it may do, how it logs out, and for admins the sessions and the audit log.

import { el, say } from "./dom.js";
import { t } from "./words.js";

const LINES = 100;
const FIRST = ["time", "who", "from", "what"];

export class AccountView {
  constructor(store, source) {
    store.watch([]);
    // statistics go on; no picture is asked for
    source.watch([...store.streams.keys()].slice(0, 1), 1, false);
    const { me } = store;
    this.skip = 0;
    this.words = el("p", { role: "alert", hidden: true });
    this.sessions = el("tbody");
    this.lines = el("tbody");
    this.more = el("button", { class: "button", type: "button", text: t("account.audit.more"), onclick: () => this.showLines() });
    const roles = Object.entries(me.roles || {}).map(([camera, role]) => el("li", { text: t("account.role", { camera: camera === "*" ? t("account.role.all") : camera, role }) }));
    this.node = el("section", { class: "account", "aria-label": t("page.account") }, el("h1", { text: t("page.account") }), this.words,
      el("div", {}, el("p", { text: me.kind === "user" ? t("account.user", { name: me.name }) : t("account.token", { name: me.name }) }),
        el("h2", { text: t("account.roles") }), el("ul", {}, ...roles),
        el("button", { class: "button", type: "button", text: t("account.logout"), onclick: () => this.logOut() })),
      me.kind === "user" ? table(t("account.sessions"), ["user", "from", "since", "used", "end"].map((one) => t(`account.sessions.${one}`)), this.sessions) : null,
      me.has_audit ? table(t("account.audit"), FIRST.map((one) => t(`account.audit.${one}`)), this.lines, this.more) : null);
    if (me.kind === "user") this.showSessions();
    if (me.has_audit) this.showLines();
  }

  close() {}
  tick() {}
  events() {}
  message() {}

  async logOut() {
    sessionStorage.clear();
    if (await this.ask("api/logout", "POST")) location.replace("/");
  }

  async showSessions() {
    const answer = await this.ask("api/sessions");
    if (answer === null) return;
    this.sessions.replaceChildren(...answer.sessions.map((one) => el("tr", {},
      el("th", { scope: "row", text: one.user }), el("td", { text: one.from }), el("td", { text: new Date(one.since).toLocaleString() }),
      el("td", { text: one.is_own ? t("account.sessions.own") : t("account.sessions.used.ago", { seconds: one.idle_s }) }),
      el("td", {}, el("button", { class: "button", type: "button", text: t("account.sessions.end"),
        "aria-label": t("account.sessions.end.what", one), onclick: () => this.end(one) })))));
  }

  async end(session) {
    if ((await this.ask(`api/sessions/${encodeURIComponent(session.id)}`, "DELETE")) === null) return;
    if (session.is_own) location.replace("/");
    else await this.showSessions();
  }

  async showLines() {
    const answer = await this.ask(`api/audit?limit=${LINES}&skip=${this.skip}`);
    if (answer === null) return;
    this.skip += answer.lines.length;
    this.more.hidden = answer.lines.length < LINES;
    this.lines.append(...answer.lines.map((line) => el("tr", {},
      el("td", {}, el("time", { datetime: line.time, text: new Date(line.time).toLocaleString() })), el("td", { text: line.who }),
      el("td", { text: line.from }), el("td", { text: [line.what, ...Object.entries(line).filter(([key]) => !FIRST.includes(key)).map(([key, value]) => `${key} ${JSON.stringify(value)}`)].join(" · ") }))));
    if (!this.skip) this.lines.replaceChildren(el("tr", {}, el("td", { colspan: FIRST.length, text: t("account.audit.none") })));
  }

  /** The JSON answer, or null; the words say why. */
  async ask(address, method = "GET") {
    this.words.hidden = true;
    try {
      const answer = await fetch(address, { method, cache: "no-store" });
      if (answer.ok) return await answer.json();
      if (answer.status === 401) location.replace("/");
      say(this.words, t("account.refused", { reason: (await answer.text()).trim() }));
    } catch {
      say(this.words, t("page.silent"));
    }
    this.words.hidden = false;
    return null;
  }
}

function table(title, heads, body, ...after) {
  return el("div", {}, el("h2", { text: title }), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, el("table", { class: "table" },
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))), body)), ...after);
}
