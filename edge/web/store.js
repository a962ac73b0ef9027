// What the page knows of every stream: facts, state, newest result, a minute or two of history, events.

import { t } from "./words.js";

export const HISTORY = 120;
const STALE_MS = 3000;
const MAX_EVENTS = 300;
const STATES = { streaming: "live", backing_off: "offline", failed: "offline" };

class Stream {
  constructor(info, colours) {
    this.info = info;
    this.name = info.name;
    this.colours = colours;
    this.stats = {};
    this.live = {};
    this.result = null;
    this.history = { fps: [], age: [], objects: [] };
    this.lastFrameMs = 0;
    this.watchedMs = null;
  }

  /** Whether its pictures are asked for; what nobody asks for does not come and is not missed. */
  set isWatched(is) {
    if (!is) this.watchedMs = null;
    else this.watchedMs ??= performance.now();
  }

  get model() { return this.info.model || {}; }
  get width() { return this.result?.width || this.stats.width || this.info.width || 16; }
  get height() { return this.result?.height || this.stats.height || this.info.height || 9; }
  get fps() { return this.stats.fps_out; }
  get age() { return this.stats.age_median_ms ?? this.result?.age_ms; }
  get objects() { return this.result?.objects || []; }

  /** live, file (recorded before), stale, connecting, frozen, offline or ended. Pictures that should come and do not are never "live". */
  get state() {
    const told = STATES[this.stats.state] || this.stats.state || "live";
    const now = told === "live" && this.info.is_file ? "file" : told;
    if (told !== "live" || this.watchedMs === null) return now;
    return performance.now() - Math.max(this.lastFrameMs, this.watchedMs) > STALE_MS ? "stale" : now;
  }

  /** Whether pictures come as they should. */
  get isMoving() { return ["live", "file"].includes(this.state); }

  get stateWords() {
    const since = this.lastFrameMs ? Math.round((performance.now() - this.lastFrameMs) / 1000) : null;
    const reason = this.stats.reason || "";
    const { state } = this;
    if (state === "offline" && reason) return t("state.offline.why", { reason });
    if (state === "stale" && since === null) return t("state.nothing");
    return t(`state.${state}`, { seconds: since });
  }

  get isAnalysed() { return !this.stats.switched_off?.includes("analysis"); }

  /** What is switched off. */
  get offWords() { return (this.stats.switched_off || []).map((part) => t(`off.${part}`)).join(", "); }

  /** The same in a word or two. */
  get stateWord() {
    return this.state === "offline" ? t("state.offline") : this.stateWords;
  }

  colourOf(className) {
    const known = (this.model.classes || []).indexOf(className);
    // what has no name is called by its number
    const index = known < 0 ? Number(className.match(/^class (\d+)$/)?.[1] ?? 13) : known;
    return this.colours[index % this.colours.length];
  }

  /** Class name → how many are in the newest frame, most frequent first. */
  get counts() {
    const counts = new Map();
    for (const object of this.objects) counts.set(object.class, (counts.get(object.class) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  }

  takeResult(result) {
    this.result = result;
    this.lastFrameMs = performance.now();
  }

  takeStats(stats, live) {
    this.stats = stats || {};
    this.live = live || {};
    keep(this.history.fps, this.stats.fps_out);
    keep(this.history.age, this.stats.age_median_ms);
    keep(this.history.objects, this.result?.objects?.length);
  }
}

function keep(series, value) {
  series.push(Number.isFinite(value) ? value : null);
  if (series.length > HISTORY) series.shift();
}

export class Store extends EventTarget {
  constructor(answer) {
    super();
    this.streams = new Map(answer.streams.map((info) => [info.name, new Stream(info, answer.colours)]));
    this.revision = answer.revision;
    this.facts = JSON.stringify({ ...answer, revision: 0 });
    this.hasPast = false;
    this.hasWebrtc = Boolean(answer.webrtc);
    this.canEdit = Boolean(answer.can_edit);
    this.hasNight = Boolean(answer.has_night);
    this.canAsk = answer.can_ask || {};
    this.hasMessages = Boolean(answer.has_messages);
    this.me = answer.me || {};
    this.events = [];
    this.connection = "connecting";
  }

  /** Whether who looks may change this stream, as far as it is known: who shows a token for it is asked for that later. */
  mayOperate(stream) {
    return this.me.kind !== "user" || ["operate", "admin"].includes(stream.info.role);
  }

  /** Whether cameras may be added. */
  get canAdd() {
    return this.canEdit && (this.me.kind !== "user" || this.me.operates_all);
  }

  /** A message of the feed: a frame's result, statistics, or events. */
  take(json) {
    if (json.stream) {
      this.streams.get(json.stream)?.takeResult(json);
    } else if (json.stats) {
      for (const [name, stream] of this.streams) stream.takeStats(json.stats.streams?.[name], json.stats.live?.[name]);
      this.hasPast = Boolean(Object.keys(json.stats.recordings || {}).length || json.stats.events?.outbox);
      this.dispatchEvent(new Event("stats"));
      if (json.stats.revision !== this.revision) this.renew(json.stats.revision);
    } else if (json.events) {
      this.events.push(...json.events);
      this.events.splice(0, this.events.length - MAX_EVENTS);
      this.dispatchEvent(new Event("events"));
    }
  }

  /**
   * A stream came, went or got another model, or the device started again: ask for them, and keep what is known of those that
   * are the same. Where all are, the view stays, and with it what was drawn there.
   */
  async renew(revision) {
    this.revision = revision;
    try {
      const given = await fetch("api/streams", { cache: "no-store" });
      // the device shows the page that asks for a login
      if (given.status === 401) location.replace("/");
      const answer = await given.json();
      this.me = answer.me || {};
      this.revision = answer.revision;
      const facts = JSON.stringify({ ...answer, revision: 0 });
      if (facts === this.facts) return;
      this.facts = facts;
      this.streams = new Map(answer.streams.map((info) => {
        const known = this.streams.get(info.name);
        if (known) known.info = info;
        return [info.name, known || new Stream(info, answer.colours)];
      }));
      this.dispatchEvent(new Event("streams"));
    } catch {
      // the next statistics ask again
      this.revision = null;
    }
  }

  watch(names) {
    for (const [name, stream] of this.streams) stream.isWatched = names.includes(name);
  }

  setConnection(state) {
    if (state === this.connection) return;
    this.connection = state;
    this.dispatchEvent(new Event("connection"));
  }
}
