// The list of events: filters, seen and not seen, and only so many rows as are near the screen, however many there are.

import { el, say } from "./dom.js";
import { called, t } from "./words.js";

const PAGE = 50;
// pages in the document: the one that is looked at, and its neighbours
const MAX_PAGES = 3;
const NEAR_PX = 600;
const CHOICES = ["kinds", "classes", "zones", "lines", "labels"];

/** What an event says of itself, in a few words. */
function told({ data = {} }) {
  const label = Object.entries(data.labels || {}).sort((a, b) => b[1] - a[1])[0]?.[0];
  const place = data.line || data.zone;
  return [label, data.class, place, data.direction].filter(Boolean).join(" · ");
}

export class ReviewList {
  /** Args: called with an event that was opened, and whenever what is chosen has changed. */
  constructor(onOpen, onChange) {
    this.onOpen = onOpen;
    this.onChange = onChange;
    this.pages = [];
    // where each page begins that was ever reached; the first begins anywhere
    this.cursors = [""];
    this.first = 0;
    this.window = [0, 4e9];
    this.selects = Object.fromEntries(CHOICES.map((key) => [key,
      el("select", { class: "select", "aria-label": t(`review.by.${key}`), "data-key": key, hidden: true, onchange: () => this.changed() },
        el("option", { value: "", text: t(`review.any.${key}`) }))]));
    const tick = (text, isOn = false) => {
      const box = el("input", { type: "checkbox", onchange: () => this.changed() });
      box.checked = isOn;
      return [box, el("label", { class: "tick" }, box, text)];
    };
    const [unseen, unseenLabel] = tick(t("review.unseen"));
    const [everywhere, everywhereLabel] = tick(t("page.all"));
    const [inTime, inTimeLabel] = tick(t("review.in_time"));
    Object.assign(this, { unseen, everywhere, inTime });
    this.count = el("p", { class: "muted small", role: "status" });
    this.all = el("button", { class: "button", type: "button", text: t("review.mark"), hidden: true, onclick: () => this.markAll() });
    this.above = el("li", { class: "past-space", "aria-hidden": "true" });
    this.rows = el("ol", { class: "past", tabindex: 0, "aria-label": t("camera.events.order") }, this.above);
    this.rows.addEventListener("scroll", () => this.follow(), { passive: true });
    this.none = el("p", { class: "muted", text: t("review.none") });
    this.filters = el("div", { class: "filters" }, ...Object.values(this.selects), unseenLabel, everywhereLabel, inTimeLabel, this.all);
    this.node = el("section", { class: "panel", "aria-label": t("camera.events") },
      el("div", { class: "past-top" }, el("h2", { text: t("camera.events") }), this.count), this.filters, this.rows, this.none);
  }

  /** What is asked for, without page and time line. */
  query() {
    const query = new URLSearchParams();
    if (this.stream && !this.everywhere.checked) query.set("streams", this.stream);
    for (const [key, select] of Object.entries(this.selects)) if (select.value) query.append(key, select.value);
    if (this.unseen.checked) query.set("seen", "0");
    return query;
  }

  /** The same for the list, which may be bound to the time line. */
  listQuery() {
    const query = this.query();
    if (this.inTime.checked) {
      query.set("from", this.window[0]);
      query.set("to", this.window[1]);
    }
    return query;
  }

  setWindow(from, to) {
    this.window = [from, to];
    if (this.inTime.checked) this.reload();
  }

  changed() {
    this.onChange();
    return this.reload();
  }

  /** Begin again at the newest event. */
  async reload() {
    this.cursors = [""];
    this.first = 0;
    const number = this.number = (this.number || 0) + 1;
    const page = await this.ask(0);
    if (!page || number !== this.number) return;
    this.rows.replaceChildren(this.above);
    this.pages = [];
    this.show(page, 0);
    this.rows.scrollTop = 0;
    await this.offer();
  }

  /** New events may have come: what is being read stays where it is. */
  async refresh() {
    if (this.rows.scrollTop > 0 && this.first + this.pages.length > 0) return;
    const page = await this.ask(0);
    const key = JSON.stringify([page?.found, page?.unseen, page?.events.map((event) => [event.id, event.seen, event.links])]);
    if (!page || key === this.key) return;
    this.key = key;
    await this.reload();
  }

  async ask(number) {
    const query = this.listQuery();
    query.set("limit", PAGE);
    if (this.cursors[number]) query.set("before", this.cursors[number]);
    const answer = await fetch(`api/review?${query}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(t("page.answered", { status: answer.status }));
    return answer.json();
  }

  show(page, number) {
    if (page.before) this.cursors[number + 1] = page.before;
    const rows = page.events.map((event) => this.row(event));
    if (this.pages.length && number < this.first) {
      this.above.after(...rows);
      this.pages.unshift(rows);
      this.first = number;
    } else {
      this.rows.append(...rows);
      this.pages.push(rows);
    }
    while (this.pages.length > MAX_PAGES) this.drop(number === this.first);
    this.height = rows[0]?.offsetHeight + 6 || this.height;
    this.above.style.height = `${this.first * PAGE * (this.height || 0)}px`;
    this.found = page.found;
    this.none.hidden = Boolean(page.found);
    this.all.hidden = !page.unseen;
    say(this.count, t("review.count", { found: page.found.toLocaleString(), unseen: page.unseen.toLocaleString() }));
  }

  /** Let go of the page at the far end. */
  drop(isLast) {
    for (const row of isLast ? this.pages.pop() : this.pages.shift()) row.remove();
    if (!isLast) this.first += 1;
  }

  /** Ask for the page that comes into sight. */
  async follow() {
    const { scrollTop, scrollHeight, clientHeight } = this.rows;
    const next = this.first + this.pages.length;
    const isDown = scrollHeight - scrollTop - clientHeight < NEAR_PX && this.cursors[next];
    const isUp = this.first > 0 && scrollTop < this.above.offsetHeight + NEAR_PX;
    if (this.isAsking || !(isDown || isUp)) return;
    this.isAsking = true;
    const [number, wanted] = [this.number, isUp ? this.first - 1 : next];
    try {
      const page = await this.ask(wanted);
      if (number === this.number) this.show(page, wanted);
    } finally {
      this.isAsking = false;
    }
    if (number === this.number) this.follow();
  }

  row(event) {
    const when = new Date(event.time).toLocaleString([], { hour12: false });
    const button = el("button", { type: "button", class: "past-event", "data-id": event.id, "data-seen": String(Boolean(event.seen)),
      onclick: () => this.open(event, button) },
    event.links.snapshot ? el("img", { src: event.links.snapshot, alt: "", loading: "lazy" }) : el("span", { class: "no-image" }),
    el("span", { class: "past-words" }, el("strong", { text: called("kind", event.kind) }),
      el("span", { class: "small", text: told(event) }),
      el("span", { class: "muted small", text: this.everywhere.checked || !this.stream ? `${event.stream} · ${when}` : when })),
    el("span", { class: "dot", role: "img", "aria-label": t(event.seen ? "review.is_seen" : "review.is_unseen") }));
    return el("li", {}, button);
  }

  open(event, button) {
    this.onOpen(event);
    if (event.seen) return;
    event.seen = true;
    button.dataset.seen = "true";
    button.querySelector(".dot").setAttribute("aria-label", t("review.is_seen"));
    this.note({ seen: true, ids: [event.id] }).then(() => this.onChange());
  }

  async note(body) {
    const answer = await fetch("api/review/seen", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    return answer.ok ? answer.json() : { left: 0 };
  }

  /** All that are found, in steps that the device takes. */
  async markAll() {
    const query = String(this.listQuery());
    this.all.disabled = true;
    while ((await this.note({ seen: true, query })).left > 0);
    this.all.disabled = false;
    this.changed();
  }

  /** What can be chosen, with how many there would be; what is chosen stays. */
  async offer() {
    const query = this.listQuery();
    query.set("buckets", "1");
    const answer = await fetch(`api/review/density?${query}`, { cache: "no-store" });
    if (!answer.ok) return;
    const { choices } = await answer.json();
    for (const [key, select] of Object.entries(this.selects)) {
      const chosen = select.value;
      const found = Object.entries(choices[key] || {});
      if (chosen && !found.some(([word]) => word === chosen)) found.push([chosen, 0]);
      select.replaceChildren(el("option", { value: "", text: t(`review.any.${key}`) }), ...found.slice(0, 200).map(([word, count]) =>
        el("option", { value: word, text: `${called(key === "kinds" ? "kind" : key, word)} (${count.toLocaleString()})` })));
      select.value = chosen;
      select.hidden = !found.length;
    }
  }
}
