// A line of time that zooms: what is recorded, how many events lie where, and a small picture under the pointer.

import { dayOf, endOf, hourOf, midnight, twoDigits } from "./days.js";
import { el, say, svg } from "./dom.js";
import { t } from "./words.js";

const WIDTH = 1440;
const MIN_S = 10;
const MAX_S = 31 * 86400;
// so far a pointer may move in a click
const CLICK_PX = 5;
const SETTLED_MS = 250;
const MAX_STRIPS = 6;
const STEP_SHARE = 1 / 60;

/** The small pictures of files, the newest few of them; each is one request. */
class Strips {
  constructor() {
    this.known = new Map();
  }

  /** Of a listed file: { url, times, width, height, columns }, or null where there is none. */
  of(file) {
    if (!this.known.has(file.url)) this.known.set(file.url, this.load(file));
    for (const [url, strip] of this.known) {
      if (this.known.size <= MAX_STRIPS) break;
      this.known.delete(url);
      strip.then((one) => one && URL.revokeObjectURL(one.url));
    }
    return this.known.get(file.url);
  }

  async load(file) {
    try {
      const answer = await fetch(`strip/${encodeURIComponent(file.stream)}/${file.file.replace(/\.mp4$/, "")}.jpg`);
      if (!answer.ok) return null;
      const [width, height, columns] = answer.headers.get("x-strip").split("x").map(Number);
      const times = answer.headers.get("x-times").split(",").map(Number);
      return { url: URL.createObjectURL(await answer.blob()), times, width, height, columns };
    } catch {
      return null;
    }
  }

  close() {
    for (const strip of this.known.values()) strip.then((one) => one && URL.revokeObjectURL(one.url));
  }
}

export class TimeLine {
  /** Args: called with a moment that was chosen, and with the window once it rests. Times are seconds since 1970. */
  constructor(onPick, onWindow) {
    this.onPick = onPick;
    this.onWindow = onWindow;
    this.files = [];
    this.counts = { counts: [], unseen: [], from: 0, to: 1 };
    this.pointers = new Map();
    this.strips = new Strips();
    [this.from, this.to, this.at, this.needle] = [0, 86400, null, null];
    this.line = svg("svg", { class: "timeline", viewBox: `0 0 ${WIDTH} 56`, preserveAspectRatio: "none", role: "slider", tabindex: 0,
      "aria-label": t("time.line"), "aria-keyshortcuts": "ArrowLeft ArrowRight PageUp PageDown + - Home Enter" });
    this.hours = el("div", { class: "hours", "aria-hidden": "true" });
    this.picture = el("div", { class: "scrub-picture" });
    this.time = el("div", { class: "scrub-time num" });
    this.scrub = el("div", { class: "scrub", hidden: true, "aria-hidden": "true" }, this.picture, this.time);
    const button = (text, label, act) => el("button", { class: "button", type: "button", text, "aria-label": label, onclick: act });
    this.range = el("span", { class: "timeline-range num", role: "status" });
    this.node = el("div", {},
      el("div", { class: "timeline-top" }, this.range,
        el("div", { class: "timeline-buttons" },
          button("−", t("time.more"), () => this.zoom(2)), button("+", t("time.less"), () => this.zoom(0.5)),
          button(t("time.day"), t("time.day.what"), () => this.showDay()))),
      el("div", { class: "timeline-box" }, this.line, this.scrub), this.hours);
    this.listen();
  }

  listen() {
    this.line.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan((event.deltaX || event.deltaY) / 600);
      else this.zoom(2 ** (Math.sign(event.deltaY) * Math.min(1, Math.abs(event.deltaY) / 200)), this.timeOf(event));
      this.hover(this.timeOf(event));
    }, { passive: false });
    this.line.addEventListener("pointerdown", (event) => {
      this.line.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      this.hasMoved = this.pointers.size > 1;
    });
    this.line.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) this.line.addEventListener(kind, (event) => this.lift(event, kind === "pointerup"));
    this.line.addEventListener("pointerleave", () => this.hover(null));
    this.line.addEventListener("blur", () => this.hover(null));
    this.line.addEventListener("keydown", (event) => this.key(event));
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return this.hover(this.timeOf(event));
    const width = this.line.getBoundingClientRect().width;
    if (!this.hasMoved && Math.abs(event.clientX - last.clientX) < CLICK_PX) return undefined;
    this.hasMoved = true;
    const others = [...this.pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    if (!others.length) this.pan((last.clientX - event.clientX) / width);
    else {
      const [before, after] = [last, event].map((one) => Math.max(8, Math.abs(one.clientX - others[0].clientX)));
      this.zoom(before / after, this.timeOf(others[0]));
    }
    this.pointers.set(event.pointerId, event);
    return this.hover(null);
  }

  lift(event, isClick) {
    const isLast = this.pointers.delete(event.pointerId) && !this.pointers.size;
    if (isLast && isClick && !this.hasMoved) this.onPick(this.timeOf(event));
  }

  key(event) {
    // what lies outside of the window would move away when it zooms
    const at = [this.needle, this.at].find((one) => one !== null && one >= this.from && one <= this.to) ?? (this.from + this.to) / 2;
    const step = (this.to - this.from) * STEP_SHARE;
    const acts = {
      ArrowLeft: () => this.hover(this.within(at - step)), ArrowRight: () => this.hover(this.within(at + step)),
      PageUp: () => this.pan(-0.5), PageDown: () => this.pan(0.5), Home: () => this.showDay(),
      "+": () => this.zoom(0.5, at), "=": () => this.zoom(0.5, at), "-": () => this.zoom(2, at),
      Enter: () => this.onPick(at), " ": () => this.onPick(at) };
    if (!acts[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    acts[event.key]();
  }

  within(at) {
    if (at < this.from || at > this.to) this.pan((at < this.from ? -1 : 1) * 0.25);
    return Math.min(this.to, Math.max(this.from, at));
  }

  timeOf(event) {
    const box = this.line.getBoundingClientRect();
    return this.from + ((event.clientX - box.left) / box.width) * (this.to - this.from);
  }

  x(seconds) {
    return ((seconds - this.from) / (this.to - this.from)) * WIDTH;
  }

  showDay(day = dayOf(new Date(((this.from + this.to) / 2) * 1000))) {
    this.show(midnight(day), endOf(day));
  }

  zoom(by, around = (this.from + this.to) / 2) {
    const length = Math.min(MAX_S, Math.max(MIN_S, (this.to - this.from) * by));
    const share = (around - this.from) / (this.to - this.from);
    this.show(around - share * length, around + (1 - share) * length);
  }

  pan(share) {
    const by = share * (this.to - this.from);
    this.show(this.from + by, this.to + by);
  }

  /** Another window: drawn at once from what is known, and told once it rests. */
  show(from, to) {
    [this.from, this.to] = [from, to];
    this.redraw();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.onWindow(from, to), SETTLED_MS);
  }

  /** What is known of the window; files oldest first. */
  draw(files, counts) {
    this.files = files;
    if (counts) this.counts = counts;
    this.redraw();
  }

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.line.replaceChildren(...this.bars(), ...this.columns(), this.cursor(), this.needleBar());
      this.label();
    });
  }

  /** One bar for what follows without a visible gap, so that there are never more than pixels. */
  bars() {
    const bars = [];
    for (const file of this.files) {
      const [left, right] = [Date.parse(file.start) / 1000, Date.parse(file.end) / 1000].map((at) => Math.min(WIDTH, Math.max(0, this.x(at))));
      if (right <= 0 || left >= WIDTH) continue;
      const last = bars.at(-1);
      if (last && last.kind === file.kind && left - last.right < 1) last.right = Math.max(last.right, right);
      else bars.push({ kind: file.kind, left, right: Math.max(right, left + 1.5) });
    }
    return bars.map((bar) => svg("rect", { class: `bar-${bar.kind}`, x: bar.left, y: 38, height: 12, width: bar.right - bar.left }));
  }

  /** How many events there are; the part that nobody has seen stands out. */
  columns() {
    const { counts, unseen, from, to } = this.counts;
    if (!counts.length) {
      return this.files.flatMap((file) => file.events.map((event) =>
        svg("rect", { class: "bar-event", x: this.x(Date.parse(event.time) / 1000) - 1, y: 6, width: 2, height: 30 })));
    }
    const most = Math.max(...counts);
    const step = (to - from) / counts.length;
    return counts.flatMap((count, i) => {
      const [left, right] = [this.x(from + i * step), this.x(from + (i + 1) * step)];
      if (!count || right < 0 || left > WIDTH) return [];
      const column = (name, number) => {
        const height = number ? 4 + 26 * Math.sqrt(number / most) : 0;
        return svg("rect", { class: name, x: left, y: 34 - height, width: Math.max(1.5, right - left - 0.6), height });
      };
      return [column("bar-seen", count), column("bar-event", unseen[i])];
    });
  }

  cursor() {
    this.cursorBar = svg("rect", { class: "bar-cursor", x: this.at === null ? -10 : this.x(this.at) - 1.5, y: 0, width: 3, height: 56 });
    return this.cursorBar;
  }

  needleBar() {
    return svg("rect", { class: "bar-needle", x: this.needle === null ? -10 : this.x(this.needle) - 0.75, y: 0, width: 1.5, height: 56 });
  }

  /** What the player shows. */
  mark(at) {
    this.at = at;
    this.cursorBar?.setAttribute("x", this.x(at) - 1.5);
  }

  words(seconds, hasDate = this.to - this.from > 2 * 86400) {
    const date = new Date(seconds * 1000);
    const day = `${dayOf(date).slice(5)} `;
    return `${hasDate ? day : ""}${hourOf(date)}${this.to - this.from < 3600 ? `:${twoDigits(date.getSeconds())}` : ""}`;
  }

  label() {
    const isDay = this.from === midnight(dayOf(new Date(this.from * 1000))) && this.to === endOf(dayOf(new Date(this.from * 1000)));
    const texts = [0, 0.25, 0.5, 0.75, 1].map((share) => this.words(this.from + share * (this.to - this.from)));
    // the day's last midnight is its own
    if (isDay) texts[4] = "24:00";
    this.hours.replaceChildren(...texts.map((text) => el("span", { text })));
    const day = dayOf(new Date(this.from * 1000));
    say(this.range, isDay ? day : `${day} ${this.words(this.from, false)} – ${this.words(this.to)}`);
    this.line.setAttribute("aria-valuetext", new Date((this.needle ?? this.at ?? this.from) * 1000).toLocaleString([], { hour12: false }));
    this.line.setAttribute("aria-valuenow", Math.round(this.needle ?? this.at ?? this.from));
    this.line.setAttribute("aria-valuemin", Math.round(this.from));
    this.line.setAttribute("aria-valuemax", Math.round(this.to));
  }

  /** Show the moment under the pointer, with a small picture where something is recorded. */
  async hover(at) {
    this.needle = at;
    this.redraw();
    this.scrub.hidden = at === null;
    if (at === null) return;
    say(this.time, new Date(at * 1000).toLocaleTimeString([], { hour12: false }));
    const share = (at - this.from) / (this.to - this.from);
    this.scrub.style.left = `${Math.min(0.92, Math.max(0.08, share)) * 100}%`;
    const file = this.files.find((one) => Date.parse(one.start) / 1000 <= at && at < Date.parse(one.end) / 1000);
    this.picture.hidden = true;
    if (!file) return;
    // who only passes by asks for nothing
    await new Promise((resolve) => { setTimeout(resolve, 60); });
    if (this.needle !== at) return;
    const strip = await this.strips.of(file);
    if (!strip || this.needle !== at) return;
    const offset = at - Date.parse(file.start) / 1000;
    const tile = Math.max(0, strip.times.findLastIndex((time) => time <= offset + 0.05));
    const [column, row] = [tile % strip.columns, Math.floor(tile / strip.columns)];
    Object.assign(this.picture.style, { width: `${strip.width}px`, height: `${strip.height}px`, backgroundImage: `url(${strip.url})`,
      backgroundPosition: `${-column * strip.width}px ${-row * strip.height}px` });
    this.picture.dataset.tile = tile;
    this.picture.hidden = false;
  }

  close() {
    clearTimeout(this.resting);
    cancelAnimationFrame(this.frame);
    this.strips.close();
  }
}
