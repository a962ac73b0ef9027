// The view of what was recorded: a day's files of one camera on a line of time, the player, and the events beside it.

import { BoxLayer } from "./boxes.js";
import { dayAfter, dayOf, endOf, hourOf, lengthOf, midnight, twoDigits } from "./days.js";
import { TestMaker } from "./why.js";
import { clock, decoded, el, number, say, svg, words } from "./dom.js";

const REFRESH_MS = 15000;
const MAX_EVENTS = 100;
// an event is shown from a little before it
const LEAD_S = 3;

function size(bytes) {
  return bytes < 1e6 ? `${number(bytes / 1e3)} kB` : bytes < 1e9 ? `${number(bytes / 1e6, 1)} MB` : `${number(bytes / 1e9, 1)} GB`;
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
  if (!answer.ok) throw new Error(`the device answered ${answer.status}`);
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
    this.node = el("section", { class: "recordings", "aria-label": "Recordings" },
      el("div", { class: "recordings-main" }, this.chooser(), this.player(), this.timeline(), this.fileList()),
      el("div", { class: "recordings-side" }, this.eventList()));
    store.watch([]);
    // events and statistics go on; no picture is asked for
    source.watch([...store.streams.keys()].slice(0, 1), 1, false);
    this.refresh();
    this.timer = setInterval(() => { if (!document.hidden) this.refresh(); }, REFRESH_MS);
  }

  chooser() {
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Camera" });
    this.date = el("input", { type: "date", class: "date", "aria-label": "Day",
      onchange: () => { if (this.date.value) this.choose(this.stream, this.date.value); } });
    const step = (text, label, by) => el("button", { class: "button", type: "button", text, "aria-label": label,
      onclick: () => this.choose(this.stream, dayAfter(this.day, by)) });
    return el("div", { class: "recordings-top" }, el("h1", { text: "Recordings" }), this.chips,
      el("div", { class: "days" }, step("‹", "The day before", -1), this.date, step("›", "The day after", 1)));
  }

  player() {
    this.video = el("video", { class: "player", controls: true, playsinline: true, preload: "metadata", hidden: true });
    this.boxes = new BoxLayer(this.video);
    this.note = el("p", { class: "player-note", role: "status" });
    this.video.addEventListener("error", () => say(this.note, this.video.error?.code === 4
      ? "This browser cannot play it, or it has made room for newer ones. Try to save it."
      : "The player stopped; choose the recording again."));
    this.video.addEventListener("ended", () => this.next());
    this.video.addEventListener("timeupdate", () => this.mark());
    this.facts = el("p", { class: "muted small" });
    this.save = el("a", { class: "button", text: "Save", hidden: true });
    this.maker = this.store.canAsk.test ? new TestMaker() : null;
    return el("div", { class: "player-box" },
      el("div", { class: "frame frame-large" }, this.video, this.boxes.node, this.note),
      el("div", { class: "player-foot" }, this.facts, this.save, this.maker?.button), this.maker?.node);
  }

  timeline() {
    this.line = svg("svg", { class: "timeline", viewBox: "0 0 1440 40", preserveAspectRatio: "none", role: "img" });
    this.line.addEventListener("click", (event) => {
      const box = this.line.getBoundingClientRect();
      this.showAt(midnight(this.day) + ((event.clientX - box.left) / box.width) * lengthOf(this.day));
    });
    this.hours = el("div", { class: "hours", "aria-hidden": "true" });
    return el("div", { class: "panel" }, this.line, this.hours);
  }

  fileList() {
    this.rows = el("ol", { class: "file-rows" });
    this.empty = el("p", { class: "muted" });
    return el("section", { class: "panel", "aria-label": "Files" }, el("h2", { text: "Files" }),
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Files, newest first" }, this.rows), this.empty);
  }

  eventList() {
    this.happened = el("ol", { class: "past" });
    this.noEvents = el("p", { class: "muted", text: "No event is kept." });
    return el("section", { class: "panel", "aria-label": "Events" }, el("h2", { text: "Events" }), this.happened, this.noEvents);
  }

  choose(stream, day) {
    this.stream = stream;
    this.day = day;
    this.isDayChosen = true;
    history.replaceState(null, "", recordingsAddress(stream));
    this.refresh();
  }

  /** Ask for the files of the day and the newest events; what has not changed is left alone. */
  async refresh() {
    try {
      const from = midnight(this.day);
      const answer = await ask("api/recordings", { streams: this.stream, from, to: endOf(this.day) });
      if (this.isClosed) return;
      if (!answer || !Object.keys(answer.streams).length) return this.nothing(Boolean(answer));
      if (!this.stream) return this.begin(answer.streams);
      await this.happenings();
      const key = JSON.stringify([this.stream, this.day, answer.recordings.map((file) => file.url)]);
      if (key === this.key) return;
      this.key = key;
      this.files = answer.recordings.reverse();
      this.showStreams(answer.streams);
      this.showFiles(answer.left_out);
      this.drawLine();
      this.settle();
    } catch (error) {
      say(this.note, error instanceof TypeError ? "The device does not answer. Trying again…" : error.message);
    }
  }

  /** No camera was asked for: take the one with the newest recording, and its day. */
  begin(streams) {
    const newest = Object.entries(streams).sort((a, b) => (b[1].last || "").localeCompare(a[1].last || ""))[0];
    this.stream = newest[0];
    if (!this.isDayChosen && newest[1].last) this.day = dayOf(new Date(newest[1].last));
    return this.refresh();
  }

  nothing() {
    this.node.dataset.empty = "";
    say(this.note, "Nothing is recorded. A [streams.record] table in the configuration begins it.");
    this.empty.textContent = "";
    return this.happenings();
  }

  showStreams(streams) {
    this.date.value = this.day;
    this.chips.replaceChildren(...Object.entries(streams).map(([name, facts]) => el("button", {
      class: "button", type: "button", text: name, "aria-pressed": String(name === this.stream),
      title: `${facts.files} files, ${size(facts.bytes)}`,
      onclick: () => this.choose(name, this.day) })));
  }

  showFiles(leftOut) {
    this.rows.replaceChildren(...[...this.files].reverse().map((file) => {
      const kinds = [...new Set(file.events.map((event) => words(event.kind)))].join(", ");
      return el("li", {}, el("button", { type: "button", class: "file-row", "data-url": file.url, onclick: () => this.play(file, 0) },
        el("strong", { text: clock(file.start) }), el("span", { class: `kind kind-${file.kind}`, text: file.kind }),
        el("span", { class: "file-events muted", text: kinds }),
        el("span", { class: "num muted", text: `${length(file.seconds)} · ${size(file.bytes)}` })));
    }));
    const words_ = this.files.length ? "" : "Nothing was recorded on this day.";
    say(this.empty, leftOut ? `${leftOut} older files of this day are not listed.` : words_);
  }

  /** Where a moment lies on the line of the day. */
  x(seconds) {
    return ((seconds - midnight(this.day)) / lengthOf(this.day)) * 1440;
  }

  /** The local time at each quarter of the day, which is no round one when the clocks change. */
  drawHours() {
    const text = (share) => hourOf(new Date((midnight(this.day) + share * lengthOf(this.day)) * 1000));
    this.hours.replaceChildren(...[...[0, 0.25, 0.5, 0.75].map(text), "24:00"].map((hour) => el("span", { text: hour })));
  }

  drawLine() {
    this.drawHours();
    const bars = this.files.map((file) => {
      const left = Math.max(0, this.x(secondsOf(file.start)));
      return svg("rect", { class: `bar-${file.kind}`, x: left, y: 8, height: 24, width: Math.max(1.5, this.x(secondsOf(file.end)) - left) });
    });
    const ticks = this.files.flatMap((file) => file.events.map((event) =>
      svg("rect", { class: "bar-event", x: this.x(secondsOf(event.time)) - 1, y: 2, width: 2, height: 36 })));
    this.cursor = svg("rect", { class: "bar-cursor", x: -10, y: 0, width: 3, height: 40 });
    this.line.replaceChildren(...bars, ...ticks, this.cursor);
    const seconds = this.files.reduce((sum, file) => sum + file.seconds, 0);
    this.line.setAttribute("aria-label", `${this.files.length} recordings on ${this.day}, ${length(seconds)} in all`);
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
    else say(this.note, "Nothing is recorded from this moment on; the newest file may not be finished yet.");
  }

  load(file, offset) {
    this.shown = file;
    say(this.note, "");
    this.video.hidden = false;
    this.video.src = offset ? `${file.url}#t=${offset.toFixed(2)}` : file.url;
    this.boxes.load(file.boxes, file.width, file.height);
    this.video.setAttribute("aria-label", `Recording of ${file.stream}, ${clock(file.start)}`);
    say(this.facts, `${file.stream} · ${new Date(file.start).toLocaleString([], { hour12: false })} · ${length(file.seconds)} · `
      + `${file.width}×${file.height} · ${file.frames} pictures · ${size(file.bytes)}`);
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
    if (!this.shown || !this.cursor) return;
    const at = secondsOf(this.shown.start) + this.video.currentTime;
    this.cursor.setAttribute("x", this.x(at) - 1.5);
  }

  async happenings() {
    const events = await ask("api/history", { streams: this.stream, limit: MAX_EVENTS });
    const key = JSON.stringify((events || []).map((event) => [event.id, event.links]));
    if (this.isClosed || key === this.eventsKey) return;
    this.eventsKey = key;
    this.noEvents.hidden = Boolean(events?.length);
    this.happened.replaceChildren(...(events || []).map((event) => {
      const details = Object.entries(event.data || {}).map(([name, value]) => `${words(name)} ${value}`).join(" · ");
      return el("li", {}, el("button", { type: "button", class: "past-event", onclick: () => this.showEvent(event) },
        event.links.snapshot ? el("img", { src: event.links.snapshot, alt: "", loading: "lazy" }) : el("span", { class: "no-image" }),
        el("span", { class: "past-words" }, el("strong", { text: words(event.kind) }),
          el("time", { datetime: event.time, class: "muted small", text: new Date(event.time).toLocaleString([], { hour12: false }) }),
          el("span", { class: "muted small", text: details }))));
    }));
  }

  async showEvent(event) {
    const at = secondsOf(event.time);
    const day = dayOf(new Date(at * 1000));
    const clip = this.files.find((file) => file.url === event.links.clip);
    if (clip) this.play(clip, Math.max(0, at - secondsOf(clip.start) - LEAD_S));
    else if (day === this.day) this.showAt(at - LEAD_S);
    else {
      this.at = at - LEAD_S;
      this.choose(this.stream, day);
    }
    this.node.scrollIntoView({ block: "start" });
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
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }
}
