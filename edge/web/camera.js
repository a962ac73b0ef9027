// The view of one camera: the picture with the drawing tools, what is seen, how well it runs, events, the model.

import { clock, el, number, say, seconds } from "./dom.js";
import { DrawTool } from "./draw.js";
import { screenWidth } from "./feed.js";
import { Picture } from "./picture.js";
import { sparkline, stageBar } from "./plots.js";
import { recordingsAddress } from "./recordings.js";
import { VideoSync } from "./sync.js";
import { TurnPanel } from "./turn.js";
import { Video, canVideo } from "./webrtc.js";
import { WhatIfPanel, WhyPanel } from "./why.js";
import { called, t, told } from "./words.js";

const TABLE_MS = 250;
const MAX_EVENTS_SHOWN = 60;
const MAX_TRACKS_SHOWN = 60;
const HEAT_MS = 5000;
const SETTLE_MS = 300;
// what was found in an older picture is not drawn over a newer one for longer
const LONGEST_MARKS_MS = 500;

const MAX_ACCURACIES = 4;
const MAX_NAMES = 12;
const SHA_CHARS = 16;

let numPanels = 0;

function panel(title, ...children) {
  numPanels += 1;
  const id = `panel-${numPanels}`;
  return el("section", { class: "panel", "aria-labelledby": id }, el("h2", { id, text: title }), ...children);
}

/** A fact of the model as text; empty for what is no single fact. */
function shortFact(key, value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) {
    return value.length > MAX_NAMES ? `${value.length}: ${value.slice(0, MAX_NAMES).join(", ")}, …` : value.join(", ");
  }
  if (typeof value === "object") return "";
  if (typeof value === "number") return number(value, Number.isInteger(value) ? 0 : 3);
  return key === "sha256" ? value.slice(0, SHA_CHARS) : String(value);
}

/** Four numbers of what was measured, the first ones of each precision; the card of the model has all of them. */
function accuracies(measured) {
  const tables = Object.entries(measured).filter(([, values]) => values && typeof values === "object");
  const each = Math.max(Math.floor(MAX_ACCURACIES / Math.max(tables.length, 1)), 1);
  return tables.flatMap(([precision, values]) => Object.entries(values).filter(([, value]) => Number.isFinite(value)).slice(0, each)
    .map(([name, value]) => [t("model.accuracy", { name: called("accuracy", name), precision }), number(value, 3)]))
    .slice(0, MAX_ACCURACIES);
}

export class CameraView {
  constructor(store, source, stream, isFallback) {
    this.store = store;
    this.source = source;
    this.stream = stream;
    this.firstSeen = new Map();
    this.tableMs = 0;
    this.picture = new Picture(stream, isFallback);
    this.badge = el("span", { class: "badge" });
    this.veil = el("p", { class: "veil" });
    this.heat = el("img", { class: "heat", alt: t("camera.heat.alt"), hidden: true });
    this.frame = el("div", { class: "frame frame-large" }, this.picture.node, this.picture.marks.node, this.heat, this.veil, this.badge);
    this.draw = new DrawTool(stream, this.frame, store.canEdit && store.mayOperate(stream));
    this.whatIf = store.canAsk["what-if"] && store.mayOperate(stream) ? new WhatIfPanel(stream, this.draw) : null;
    this.why = store.canAsk.why ? new WhyPanel(stream) : null;
    this.turn = stream.info.can_turn ? new TurnPanel(stream) : null;
    this.node = el("section", { class: "camera" },
      el("div", { class: "camera-main" }, this.title(), this.frame, this.turn?.node, this.draw.node, this.whatIf?.node, this.why?.node, this.health()),
      el("div", { class: "camera-side" }, this.counting(), this.tracking(), this.happening(), this.modelCard()));
    store.watch([stream.name]);
    this.hasPictures = true;
    this.observer = new ResizeObserver(() => {
      clearTimeout(this.resized);
      this.resized = setTimeout(() => this.watch(), this.resized ? SETTLE_MS : 0);
    });
    this.observer.observe(this.frame);
    if (store.hasWebrtc && !isFallback && canVideo()) this.tryVideo();
    this.onStats = () => this.stats();
    store.addEventListener("stats", this.onStats);
    this.stats();
    this.events();
  }

  watch() {
    if (this.isClosed) return;
    if (this.video) this.video.width = screenWidth(this.frame);
    this.source.watch([this.stream.name], 0, this.hasPictures, screenWidth(this.frame));
  }

  /** JPEG pictures are shown until the video plays, and again when it does not. */
  tryVideo() {
    this.video = new Video(this.stream);
    this.sync = new VideoSync(Boolean(this.stream.info.has_live_source));
    this.video.addEventListener("picture", ({ detail }) => {
      this.shownTime = detail;
      this.markVideo();
    });
    this.picture.node.after(this.video.node);
    const show = (isVideo) => {
      // a video that is not laid out is not played either
      this.video.node.classList.toggle("is-waiting", !isVideo);
      this.picture.node.hidden = isVideo;
      this.frame.dataset.picture = isVideo ? "webrtc" : "jpeg";
      this.hasPictures = !isVideo;
      if (!isVideo) this.sync.forget();
      this.watch();
    };
    this.video.addEventListener("playing", () => show(true));
    this.video.addEventListener("lost", () => show(false));
  }

  /** Draw what was found in the picture that the video shows, as soon as both are there. */
  markVideo() {
    const result = this.sync.resultOf(this.shownTime);
    const now = performance.now();
    if (result !== null) {
      this.picture.marks.show(result === undefined ? this.stream.result : result);
      this.markedMs = now;
    } else if (now - this.markedMs > LONGEST_MARKS_MS) {
      this.picture.marks.show(null);
    }
  }

  title() {
    const name = encodeURIComponent(this.stream.name);
    this.facts = el("p", { class: "facts muted" });
    return el("div", { class: "camera-title" },
      el("h1", { text: this.stream.name }), this.facts,
      el("div", { class: "buttons" },
        el("a", { class: "button", href: `snapshot/${name}.jpg`, target: "_blank", rel: "noopener", text: t("camera.snapshot") }),
        ...(this.stream.info.heatmap ? [this.heatButton()] : []),
        this.sound = this.soundButton(),
        el("button", { class: "button", type: "button", text: t("camera.full"), onclick: () => this.frame.requestFullscreen?.() })));
  }

  /** Lays over the picture where objects spent their time, drawn again every few seconds. */
  heatButton() {
    const draw = () => { this.heat.src = `heatmap/${encodeURIComponent(this.stream.name)}.png?${Date.now()}`; };
    const toggle = () => {
      this.heat.hidden = !this.heat.hidden;
      button.setAttribute("aria-pressed", String(!this.heat.hidden));
      clearInterval(this.heatTimer);
      if (this.heat.hidden) return;
      draw();
      this.heatTimer = setInterval(draw, HEAT_MS);
    };
    const button = el("button", { class: "button", type: "button", "aria-pressed": "false", text: t("camera.heat"), onclick: toggle });
    return button;
  }

  /** Silent until it is pressed; shown while there is something to hear. */
  soundButton() {
    const toggle = () => {
      const isOn = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isOn));
      this.video.setSound(isOn);
    };
    const button = el("button", { class: "button sound", type: "button", "aria-pressed": "false", hidden: true, text: t("camera.sound"), onclick: toggle });
    return button;
  }

  health() {
    this.fps = sparkline(t("camera.rate"), t("unit.fps"), { digits: 1, kind: "a" });
    this.age = sparkline(t("camera.age"), t("unit.ms"), { digits: 0, kind: "b" });
    this.load = sparkline(t("camera.objects"), "", { digits: 0, kind: "c" });
    this.stages = stageBar();
    this.numbers = el("dl", { class: "numbers" });
    return el("div", { class: "panels" },
      panel(t("camera.health"), el("div", { class: "plots" }, this.fps.node, this.age.node, this.load.node), this.numbers),
      panel(t("stages.title"), this.stages.node));
  }

  counting() {
    this.counts = el("div", { class: "counts" });
    this.shapeCounts = el("div", { class: "counts" });
    // in place of what an older picture showed
    this.still = el("p", { class: "muted still" });
    return panel(t("camera.view"), this.still, this.counts, this.shapeCounts);
  }

  tracking() {
    this.rows = el("tbody");
    this.noTracks = el("p", { class: "muted", text: t("camera.tracks.none") });
    this.table = el("table", { class: "table" },
      el("thead", {}, el("tr", {},
        ...["id", "class", "score", "centre", "size", "seen"].map((key, i) =>
          el("th", { scope: "col", class: i < 2 ? null : "num", text: t(`camera.track.${key}`) })))),
      this.rows);
    return panel(t("camera.tracks"), el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("camera.tracks") }, this.table), this.noTracks);
  }

  happening() {
    this.list = el("ol", { class: "events" });
    this.noEvents = el("p", { class: "muted", text: t("camera.events.none") });
    return panel(t("camera.events"), el("div", { class: "scroll", tabindex: 0, role: "log", "aria-live": "polite", "aria-label": t("camera.events.order") }, this.list), this.noEvents);
  }

  modelCard() {
    const { model } = this.stream;
    const rows = [];
    const add = (text, value) => rows.push(el("dt", { text }), el("dd", { text: value }));
    const { accuracy, ...facts } = model;
    for (const [key, value] of Object.entries({ ...facts, source: this.stream.info.source })) {
      const said = shortFact(key, value);
      if (said) add(called("model", key), said);
    }
    for (const [key, value] of accuracies(accuracy || {})) add(key, value);
    return panel(t("camera.model"), el("dl", { class: "card-list" }, ...rows));
  }

  message({ json, jpeg }) {
    if (json.stream !== this.stream.name) return;
    if (jpeg) this.picture.show(jpeg, json);
    this.sync?.take(json);
    if (this.video?.isPlaying && this.picture.marks.result?.ticks !== json.ticks) this.markVideo();
    const now = performance.now();
    if (now - this.tableMs < TABLE_MS) return;
    this.tableMs = now;
    this.showObjects(json);
  }

  showObjects(json) {
    const objects = json.objects || [];
    const now = performance.now();
    const present = new Set();
    const rows = objects.slice(0, MAX_TRACKS_SHOWN).map((object) => {
      const id = object.track_id;
      if (id !== null) {
        present.add(id);
        if (!this.firstSeen.has(id)) this.firstSeen.set(id, now);
      }
      const [x1, y1, x2, y2] = object.xyxy;
      const dot = el("i", { class: "dot", "aria-hidden": "true" });
      dot.style.background = this.stream.colourOf(object.class);
      const seen = id === null ? "–" : seconds((now - this.firstSeen.get(id)) / 1000);
      return el("tr", { "data-track": id },
        el("td", { text: id ?? "–" }), el("td", {}, dot, object.class),
        ...[number(object.score, 2), `${number((x1 + x2) / 2)}, ${number((y1 + y2) / 2)}`,
          `${number(x2 - x1)}×${number(y2 - y1)}`, seen].map((text) => el("td", { class: "num", text })));
    });
    for (const id of this.firstSeen.keys()) if (!present.has(id)) this.firstSeen.delete(id);
    this.rows.replaceChildren(...rows);
    this.table.hidden = !rows.length;
    this.noTracks.hidden = rows.length > 0;
    const shares = Object.entries(json.shares || {}).map(([name, share]) => [name, share, `${number(share * 100)} %`]);
    const classes = (json.classes || []).map((c) => [c.class, c.score, `${number(c.score * 100)} %`]);
    const counts = this.stream.counts.map(([name, n]) => [name, n, n]);
    this.bars([...shares, ...classes, ...counts]);
  }

  bars(values) {
    const most = Math.max(...values.map(([, value]) => value), 1e-9);
    this.counts.replaceChildren(...values.map(([name, value, text]) => {
      const fill = el("span", { class: "bar-fill" });
      fill.style.width = `${(value / most) * 100}%`;
      fill.style.background = this.stream.colourOf(name);
      return el("div", { class: "bar-row" },
        el("span", { text: name }), el("span", { class: "bar", "aria-hidden": "true" }, fill), el("strong", { text }));
    }));
    if (!values.length) this.counts.replaceChildren(el("p", { class: "muted", text: t("camera.view.none") }));
  }

  stats() {
    const { history, stats, live } = this.stream;
    this.sound.hidden = !(this.video && stats.sound);
    this.fps.update(history.fps);
    this.age.update(history.age);
    this.load.update(history.objects);
    this.stages.update(stats.stages);
    const facts = {
      [t("camera.late")]: t("picture.age", { ms: number(stats.age_p99_ms) }),
      [t("camera.fps_in")]: number(stats.fps_in, 1), [t("camera.viewers")]: live.viewers,
    };
    const counts = Object.fromEntries(Object.entries(stats.counts || {}).map(([key, value]) => [called("count", key), value]));
    this.numbers.replaceChildren(...Object.entries({ ...facts, ...counts })
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => el("div", {}, el("dt", { text: key }), el("dd", { text: value }))));
    const shapes = [
      ...Object.entries(stats.analytics?.lines || {}).map(([name, c]) => [name, t("camera.line", c)]),
      ...Object.entries(stats.analytics?.zones || {}).map(([name, c]) => [name, t("camera.zone", { count: c.occupancy })])];
    this.list.classList.toggle("has-past", this.store.hasPast);
    this.shapeCounts.replaceChildren(...shapes.map(([name, text]) =>
      el("div", { class: "bar-row" }, el("span", { text: name }), el("span"), el("strong", { text }))));
  }

  /** Put what is new on top; a screen reader reads every entry that is added, so those that are there stay. */
  events() {
    const mine = this.store.events.filter((event) => event.stream === this.stream.name).slice(-MAX_EVENTS_SHOWN);
    const fresh = mine.slice(mine.indexOf(this.newestEvent) + 1);
    this.noEvents.hidden = mine.length > 0;
    if (!fresh.length) return;
    this.newestEvent = fresh.at(-1);
    this.list.prepend(...fresh.reverse().map((event) => this.entry(event)));
    while (this.list.childElementCount > MAX_EVENTS_SHOWN) this.list.lastElementChild.remove();
  }

  entry(event) {
    return el("li", {},
      el("time", { datetime: event.captured, class: "muted", text: event.captured ? clock(event.captured) : "" }),
      el("strong", {}, called("kind", event.kind), event.captured ? el("a", {
        class: "event-link", href: recordingsAddress(this.stream.name, Date.parse(event.captured) / 1000 - 3), text: ` ▸ ${t("camera.recording")}` }) : null,
      this.why && event.captured ? el("button", { class: "event-link is-button", type: "button", text: ` ▸ ${t("camera.why")}`, onclick: () => this.why.askOf(event) }) : null),
      el("span", { class: "muted", text: told(event) }));
  }

  tick() {
    const { stream } = this;
    const isLost = this.store.connection === "lost";
    const state = isLost ? "connecting" : stream.state;
    this.node.dataset.state = state;
    this.frame.dataset.state = state;
    this.badge.className = `badge state-${state}`;
    say(this.badge, isLost ? t("connection.lost") : stream.stateWord);
    say(this.veil, isLost ? t("connection.again") : stream.isMoving ? "" : stream.stateWords);
    this.node.classList.toggle("is-still", isLost || !stream.isMoving || !stream.isAnalysed);
    say(this.still, isLost ? t("connection.again") : stream.isMoving ? stream.offWords : stream.stateWords);
    const key = !stream.isMoving || isLost ? "camera.size" : Number.isFinite(stream.age) ? "camera.facts.age" : "camera.facts";
    say(this.facts, t(key, { width: stream.width, height: stream.height, fps: number(stream.fps, 1), ms: number(stream.age) }));
    this.draw.fit();
    this.turn?.tick();
  }

  close() {
    this.store.removeEventListener("stats", this.onStats);
    this.draw.close();
    this.why?.close();
    this.whatIf?.close();
    clearInterval(this.heatTimer);
    this.isClosed = true;
    this.observer.disconnect();
    clearTimeout(this.resized);
    this.video?.close();
    this.picture.close();
  }
}
