// The view of what was recorded: a day's files of one camera on a line of time, the player, and the events next to it.

import { BoxLayer } from "./boxes.js";
import { dayAfter, dayOf, endOf, midnight, twoDigits } from "./days.js";
import { clock, decoded, el, number, say } from "./dom.js";
import { ReviewList } from "./review.js";
import { TimeLine } from "./timeline.js";
import { TestMaker } from "./why.js";
import { called, t, told } from "./words.js";

const REFRESH_MS = 15000;
const MAX_EVENTS = 100;
// an event is shown from a little before it
const LEAD_S = 3;
// of a window; the device draws each as a column
const BUCKETS = 240;
const MAX_EXPORT_S = 86400;

function size(bytes) {
  const [value, unit] = bytes < 1e6 ? [number(bytes / 1e3), "unit.kb"] : bytes < 1e9 ? [number(bytes / 1e6, 1), "unit.mb"] : [number(bytes / 1e9, 1), "unit.gb"];
  return `${value} ${t(unit)}`;
}

function length(s) {
  const whole = Math.max(1, Math.round(s));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (parts[0] ? parts : parts.slice(1)).map((part, i) => (i ? twoDigits(part) : part)).join(":");
}

const secondsOf = (iso) => Date.parse(iso) / 1000;

async function ask(path, query) {
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { cache: "no-store" });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(t("page.answered", { status: answer.status }));
  return answer.json();
}

/** The address of this view: #/recordings/CAMERA?t=SECONDS */
export function recordingsAddress(stream, at) {
  const time = at === undefined ? "" : `?t=${Math.floor(at)}`;
  return `#/recordings${stream ? `/${encodeURIComponent(stream)}` : ""}${time}`;
}

export class RecordingsView {
  constructor(store, source, hash) {
    this.store = store;
    const [, stream, query] = hash.match(/^#\/recordings(?:\/([^?]*))?(?:\?(.*))?$/) || [];
    this.stream = decoded(stream || "");
    const at = Number(new URLSearchParams(query || "").get("t"));
    // what no Date can hold, nobody has recorded
    this.at = at > 0 && at < 1e11 ? at : null;
    this.day = dayOf(this.at ? new Date(this.at * 1000) : new Date());
    this.isDayChosen = this.at !== null;
    this.files = [];
    this.shown = null;
    this.node = el("section", { class: "recordings", "aria-label": t("page.recordings") },
      el("div", { class: "recordings-main" }, this.chooser(), this.player(), this.timelinePanel(), this.fileList()),
      el("div", { class: "recordings-side" }, this.eventList()));
    this.line.show(midnight(this.day), endOf(this.day));
    store.watch([]);
    // events and statistics go on; no picture is asked for
    source.watch([...store.streams.keys()].slice(0, 1), 1, false);
    this.refresh();
    this.timer = setInterval(() => { if (!document.hidden) this.refresh(); }, REFRESH_MS);
  }

  chooser() {
    this.chips = el("div", { class: "chips", role: "group", "aria-label": t("past.camera") });
    this.date = el("input", { type: "date", class: "date", "aria-label": t("past.day"),
      onchange: () => { if (this.date.value) this.choose(this.stream, this.date.value); } });
    const step = (text, label, by) => el("button", { class: "button", type: "button", text, "aria-label": label,
      onclick: () => this.choose(this.stream, dayAfter(this.day, by)) });
    return el("div", { class: "recordings-top" }, el("h1", { text: t("page.recordings") }), this.chips,
      el("div", { class: "days" }, step("‹", t("past.day.before"), -1), this.date, step("›", t("past.day.after"), 1)));
  }

  player() {
    this.video = el("video", { class: "player", controls: true, playsinline: true, preload: "metadata", hidden: true });
    this.boxes = new BoxLayer(this.video);
    this.note = el("p", { class: "player-note", role: "status" });
    this.video.addEventListener("error", () => say(this.note, t(this.video.error?.code === 4 ? "past.unplayable" : "past.stopped")));
    this.video.addEventListener("ended", () => this.next());
    this.video.addEventListener("timeupdate", () => this.mark());
    this.facts = el("p", { class: "muted small" });
    this.save = el("a", { class: "button", text: t("past.save"), hidden: true });
    this.maker = this.store.canAsk.test ? new TestMaker() : null;
    return el("div", { class: "player-box" },
      el("div", { class: "frame frame-large" }, this.video, this.boxes.node, this.note),
      el("div", { class: "player-foot" }, this.facts, this.save, this.maker?.button), this.maker?.node);
  }

  timelinePanel() {
    this.line = new TimeLine((at) => this.showAt(at), (from, to) => this.look(from, to));
    const link = (text) => el("a", { class: "button", text, "aria-disabled": "true" });
    [this.span, this.lapse] = [link(t("past.span")), link(t("past.lapse"))];
    this.spanFacts = el("span", { class: "muted small", role: "status" });
    return el("div", { class: "panel" }, this.line.node, el("div", { class: "span-foot" }, this.spanFacts, this.lapse, this.span));
  }

  /** The time line rests on another window. */
  look(from, to) {
    const day = dayOf(new Date(((from + to) / 2) * 1000));
    if (day !== this.day) [this.day, this.isDayChosen] = [day, true];
    this.date.value = this.day;
    this.review.setWindow(from, to);
    this.refresh();
  }

  fileList() {
    this.rows = el("ol", { class: "file-rows" });
    this.empty = el("p", { class: "muted" });
    return el("section", { class: "panel", "aria-label": t("past.files") }, el("h2", { text: t("past.files") }),
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("past.files.order") }, this.rows), this.empty);
  }

  eventList() {
    this.review = new ReviewList((event) => this.showEvent(event), () => this.redraw());
    // a device that keeps no index of its events has the newest ones alone
    this.happened = el("ol", { class: "past" });
    this.noEvents = el("p", { class: "muted", text: t("review.none") });
    this.newest = el("section", { class: "panel", "aria-label": t("past.newest"), hidden: true },
      el("h2", { text: t("camera.events") }), this.happened, this.noEvents);
    return el("div", {}, this.review.node, this.newest);
  }

  choose(stream, day) {
    this.stream = stream;
    this.day = day;
    this.isDayChosen = true;
    this.date.value = day;
    history.replaceState(null, "", recordingsAddress(stream));
    this.review.stream = stream;
    this.line.show(midnight(day), endOf(day));
    this.refresh();
  }

  /** Ask for the files of the window and the events; what has not changed is left alone. */
  async refresh() {
    try {
      const { from, to } = this.line;
      const answer = await ask("api/recordings", { streams: this.stream, from, to });
      if (this.isClosed) return;
      if (!answer || !Object.keys(answer.streams).length) return await this.nothing(answer);
      if (!this.stream) return this.begin(answer.streams);
      await this.happenings(answer.review);
      // another window may have been asked for meanwhile
      if (this.isClosed || from !== this.line.from || to !== this.line.to) return;
      const key = JSON.stringify([this.stream, from, to, answer.recordings.map((file) => file.url)]);
      if (key === this.key) return;
      this.key = key;
      this.files = answer.recordings.reverse();
      this.showStreams(answer.streams);
      this.showFiles(answer.left_out);
      this.line.draw(this.files, null);
      this.offerSpan();
      this.settle();
    } catch (error) {
      say(this.note, error instanceof TypeError ? t("page.silent") : error.message);
    }
  }

  /** Other filters, or events that were seen: the columns of the time line follow. */
  async redraw() {
    if (!this.hasReview) return;
    const query = this.review.query();
    query.set("from", this.line.from);
    query.set("to", this.line.to);
    query.set("buckets", BUCKETS);
    const counts = await ask("api/review/density", query);
    if (counts && !this.isClosed) this.line.draw(this.files, counts);
  }

  /** What can be saved of the window, and about how much that is. */
  async offerSpan() {
    const [from, to] = [this.line.from, Math.min(this.line.to, Date.now() / 1000)];
    const query = new URLSearchParams({ from, to });
    const path = encodeURIComponent(this.stream);
    const plan = this.files.length ? await ask(`api/export/${path}`, query).catch(() => null) : null;
    if (this.isClosed || from !== this.line.from) return;
    const offer = (node, isOffered, address) => {
      node.setAttribute("aria-disabled", String(!isOffered));
      if (isOffered) node.href = address;
      else node.removeAttribute("href");
    };
    offer(this.span, plan && to - from <= MAX_EXPORT_S, `export/${path}.mp4?${query}&download=1`);
    offer(this.lapse, plan, `lapse/${path}.mp4?${query}&download=1`);
    const count = plan?.gaps.length || 0;
    const key = !count ? "past.span.facts" : count === 1 ? "past.span.facts.gap" : "past.span.facts.gaps";
    say(this.spanFacts, plan ? t(key, { length: length(plan.seconds), size: size(plan.bytes), count }) : "");
  }

  /** No camera was asked for: take the one with the newest recording, and its day. */
  begin(streams) {
    const newest = Object.entries(streams).sort((a, b) => (b[1].last || "").localeCompare(a[1].last || ""))[0];
    this.stream = newest[0];
    this.review.stream = this.stream;
    if (!this.isDayChosen && newest[1].last) this.day = dayOf(new Date(newest[1].last));
    this.line.show(midnight(this.day), endOf(this.day));
    return this.refresh();
  }

  nothing(answer) {
    this.node.dataset.empty = "";
    say(this.note, t("past.nothing"));
    this.empty.textContent = "";
    return this.happenings(answer?.review);
  }

  showStreams(streams) {
    this.date.value = this.day;
    this.chips.replaceChildren(...Object.entries(streams).map(([name, facts]) => el("button", {
      class: "button", type: "button", text: name, "aria-pressed": String(name === this.stream),
      title: t("past.camera.facts", { count: facts.files, size: size(facts.bytes) }),
      onclick: () => this.choose(name, this.day) })));
  }

  showFiles(leftOut) {
    this.rows.replaceChildren(...[...this.files].reverse().map((file) => {
      const kinds = [...new Set(file.events.map((event) => called("kind", event.kind)))].join(", ");
      return el("li", {}, el("button", { type: "button", class: "file-row", "data-url": file.url, onclick: () => this.play(file, 0) },
        el("strong", { text: clock(file.start) }), el("span", { class: `kind kind-${file.kind}`, text: file.kind }),
        el("span", { class: "file-events muted", text: kinds }),
        el("span", { class: "num muted", text: `${length(file.seconds)} · ${size(file.bytes)}` })));
    }));
    say(this.empty, leftOut ? t("past.left_out", { count: leftOut }) : this.files.length ? "" : t("past.none"));
  }

  /** What the address asks for, else the newest file, not begun. */
  settle() {
    if (this.at) {
      const at = this.at;
      this.at = null;
      this.showAt(at);
    } else if (this.files.length && this.shown?.stream !== this.stream) this.load(this.files.at(-1), 0);
  }

  /** Play the file that shows this moment, or the first one after it. */
  showAt(seconds) {
    const file = this.files.find((one) => secondsOf(one.end) + 0.5 >= seconds);
    if (file) this.play(file, Math.max(0, seconds - secondsOf(file.start)));
    else say(this.note, t("past.none.after"));
  }

  load(file, offset) {
    this.shown = file;
    say(this.note, "");
    this.video.hidden = false;
    this.video.src = offset ? `${file.url}#t=${offset.toFixed(2)}` : file.url;
    this.boxes.load(file.boxes, file.width, file.height);
    this.video.setAttribute("aria-label", t("past.of", { name: file.stream, time: clock(file.start) }));
    say(this.facts, t("past.facts", { name: file.stream, time: new Date(file.start).toLocaleString([], { hour12: false }), length: length(file.seconds),
      width: file.width, height: file.height, frames: file.frames, size: size(file.bytes) }));
    this.save.hidden = false;
    this.save.href = `${file.url}?download=1`;
    for (const row of this.rows.querySelectorAll(".file-row")) row.setAttribute("aria-current", String(row.dataset.url === file.url));
    this.maker?.show(file, () => this.video.currentTime);
    this.mark();
  }

  play(file, offset) {
    this.load(file, offset);
    // a browser that wants a click first shows its button
    this.video.play().catch(() => {});
  }

  next() {
    const following = this.files[this.files.findIndex((file) => file.url === this.shown?.url) + 1];
    if (following && following.kind === "segment") this.play(following, 0);
  }

  mark() {
    if (this.shown) this.line.mark(secondsOf(this.shown.start) + this.video.currentTime);
  }

  async happenings(hasReview) {
    this.hasReview = Boolean(hasReview);
    [this.review.node.hidden, this.newest.hidden] = [!hasReview, Boolean(hasReview)];
    if (hasReview) {
      this.review.stream = this.stream;
      await Promise.all([this.review.refresh(), this.redraw()]);
      return;
    }
    const events = await ask("api/history", { streams: this.stream, limit: MAX_EVENTS });
    const key = JSON.stringify((events || []).map((event) => [event.id, event.links]));
    if (this.isClosed || key === this.eventsKey) return;
    this.eventsKey = key;
    this.noEvents.hidden = Boolean(events?.length);
    this.happened.replaceChildren(...(events || []).map((event) => {
      return el("li", {}, el("button", { type: "button", class: "past-event", onclick: () => this.showEvent(event) },
        event.links.snapshot ? el("img", { src: event.links.snapshot, alt: "", loading: "lazy" }) : el("span", { class: "no-image" }),
        el("span", { class: "past-words" }, el("strong", { text: called("kind", event.kind) }),
          el("time", { datetime: event.time, class: "muted small", text: new Date(event.time).toLocaleString([], { hour12: false }) }),
          el("span", { class: "muted small", text: told(event) }))));
    }));
  }

  async showEvent(event) {
    const at = secondsOf(event.time);
    const clip = this.files.find((file) => file.url === event.links.clip);
    this.node.scrollIntoView({ block: "start" });
    if (clip) this.play(clip, Math.max(0, at - secondsOf(clip.start) - LEAD_S));
    else if (event.stream === this.stream && at - LEAD_S >= this.line.from && at < this.line.to) this.showAt(at - LEAD_S);
    else {
      this.at = at - LEAD_S;
      this.key = null;
      this.choose(event.stream, dayOf(new Date(at * 1000)));
    }
  }

  message() {}

  tick() {}

  /** Something happened: the outbox and the files have it a moment later. */
  events() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.refresh(), 1500);
  }

  close() {
    this.isClosed = true;
    this.maker?.close();
    clearInterval(this.timer);
    clearTimeout(this.soon);
    this.line.close();
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }
}
