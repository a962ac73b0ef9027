// Questions about the past: why something was said or was not, what other lines would have said, and what a recording
// would expect as a test. The device answers them in a process of its own, which can be ended from here.

import { Editor } from "./edit.js";
import { clock, el, number, say, words } from "./dom.js";
import { called, t } from "./words.js";

const POLL_MS = 400;
const KINDS = ["line_crossed", "zone_entered", "zone_left", "zone_loitering", "object_stopped", "zone_crowded"];
const HOURS = [1, 24, 168, 744];
const LONG_S = 120;

const button = (text, onclick, kind = "") => el("button", { class: `button ${kind}`.trim(), type: "button", text, onclick });

/** A time as an input of the browser has it: local, to the second. */
function localText(date) {
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

/** The same sentence with the times as they are here. */
function localTimes(sentence) {
  return sentence.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, (iso) => new Date(iso).toLocaleString([], { hour12: false }));
}

/** Puts questions, shows how far they are, ends them. */
class Asker {
  constructor(streamName) {
    this.streamName = streamName;
    this.editor = new Editor(streamName);
    this.progress = el("span", { class: "muted small", role: "status", "aria-live": "polite" });
    this.end = button(t("asked.cancel"), () => this.cancel());
    this.end.hidden = true;
    this.node = el("div", { class: "asking" }, this.editor.form, this.editor.words, this.progress, this.end);
  }

  /** The answer, or null; the words say why. A question before it that is not answered yet is ended. */
  async answer(question) {
    await this.cancel();
    say(this.progress, t("asked.looking"));
    const asked = await this.editor.ask("api/questions", { method: "POST", body: JSON.stringify({ stream: this.streamName, ...question }) });
    if (asked === null) return this.settle("");
    this.address = `api/questions/${asked.id}`;
    const { address } = this;
    this.end.hidden = false;
    while (address === this.address) {
      const state = await this.editor.ask(address);
      if (state === null || address !== this.address) return this.settle("");
      if (state.state === "done") {
        this.settle(`${number(state.seconds, 1)} s`);
        return state.answer;
      }
      if (state.state === "failed" || state.state === "cancelled") {
        say(this.editor.words, state.error);
        return this.settle(state.state === "cancelled" ? t("asked.cancelled") : "");
      }
      say(this.progress, state.state === "waiting" ? t("asked.waiting")
        : t("asked.progress", { seconds: number(state.seconds), limit: number(state.limit_s) }));
      await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    }
    return null;
  }

  settle(text) {
    say(this.progress, text);
    this.end.hidden = true;
    return null;
  }

  async cancel() {
    if (this.end.hidden || !this.address) return;
    const { address } = this;
    this.address = null;
    this.settle(t("asked.cancelled"));
    await this.editor.ask(address, { method: "DELETE" });
  }

  save(name) {
    return this.editor.ask(this.address, { method: "PUT", body: JSON.stringify({ name }) });
  }
}

function picture(source, alt) {
  return source ? el("img", { class: "asked-picture", src: source, alt, loading: "lazy" }) : null;
}

function told(event) {
  const { data } = event;
  return [called("kind", event.kind), data.line || data.zone, data.direction, data.class, event.track_id === null ? "" : t("event.track", { id: event.track_id })]
    .filter(Boolean).join(" · ");
}

function row(word, event) {
  const text = told(event);
  return el("li", { class: `asked-event is-${word}`, "data-change": word }, picture(event.picture, t("asked.at", { event: text, time: clock(event.time) })),
    el("span", { class: "past-words" }, el("strong", { text: word ? `${t(`asked.${word}`)}: ${text}` : text }),
      el("time", { class: "muted small", datetime: event.time, text: new Date(event.time).toLocaleString([], { hour12: false }) })));
}

export class WhyPanel {
  constructor(stream) {
    this.stream = stream;
    this.asker = new Asker(stream.name);
    this.time = el("input", { type: "datetime-local", step: 1, "aria-label": t("asked.when"), value: localText(new Date(Date.now() - 30000)) });
    this.kind = el("select", { "aria-label": t("asked.kind") }, el("option", { value: "", text: t("asked.kind.any") }),
      ...KINDS.map((kind) => el("option", { value: kind, text: called("kind", kind) })));
    this.part = el("select", { "aria-label": t("asked.part"), onfocus: () => this.fill() }, el("option", { value: "", text: t("asked.part.any") }));
    this.result = el("div", { class: "asked", "aria-live": "polite" });
    this.node = el("section", { class: "panel why", "aria-label": t("asked.why.label") },
      el("div", { class: "draw-bar" }, el("h2", { text: t("asked.why") }), this.time, this.kind, this.part, button(t("asked.ask"), () => this.ask(), "primary")),
      this.asker.node, this.result);
  }

  /** The lines and zones that there are now. */
  fill() {
    const { lines = {}, zones = {} } = this.stream.stats.analytics || {};
    const names = [...Object.keys(lines), ...Object.keys(zones)];
    const chosen = this.part.value;
    this.part.replaceChildren(el("option", { value: "", text: t("asked.part.any") }),
      ...names.map((name) => el("option", { value: name, text: name, selected: name === chosen })));
  }

  /** An event that was said: why. */
  askOf(event) {
    this.time.value = localText(new Date(event.captured));
    this.kind.value = KINDS.includes(event.kind) ? event.kind : "";
    this.node.scrollIntoView({ block: "center" });
    return this.ask(Date.parse(event.captured) / 1000);
  }

  async ask(at = new Date(this.time.value).getTime() / 1000) {
    if (!(at > 0)) return;
    this.result.replaceChildren();
    const answer = await this.asker.answer({ ask: "why", at, kind: this.kind.value, part: this.part.value });
    if (answer === null) return;
    const isDay = answer.also_within === "day";
    const others = answer.also ? t(isDay ? "asked.others.day" : "asked.others.hour", { count: answer.also })
      : t(isDay ? "asked.others.none.day" : "asked.others.none.hour");
    this.result.replaceChildren(
      el("p", { class: "asked-sentence", text: localTimes(answer.sentence) }),
      ...(answer.setting && answer.value !== null ? [el("p", {}, el("code", { text: `${answer.setting} = ${JSON.stringify(answer.value)}` }))] : []),
      ...(answer.picture ? [picture(answer.picture, t("asked.frame"))] : [el("p", { class: "muted", text: t("asked.frame.none") })]),
      ...(answer.value === null ? [] : [el("p", { class: "muted", text: others })]),
      el("ol", { class: "asked-events" }, ...answer.others.map((event) => row("", event))),
      ...answer.problems.map((text) => el("p", { class: "muted small", text })));
  }

  close() {
    this.asker.cancel();
  }
}

export class WhatIfPanel {
  /** Args: the stream, and the tool whose drawing is tried. */
  constructor(stream, draw) {
    this.draw = draw;
    this.asker = new Asker(stream.name);
    this.hours = el("select", { "aria-label": t("asked.hours") }, ...HOURS.map((hours) => el("option", { value: hours, text: t(`asked.hours.${hours}`), selected: hours === 24 })));
    this.score = el("input", { type: "number", min: 0, max: 1, step: 0.01, class: "score", "aria-label": t("asked.score.label"),
      placeholder: t("asked.score.none"), onchange: () => draw.setScore(this.score.value === "" ? null : Number(this.score.value)) });
    this.result = el("div", { class: "asked", "aria-live": "polite" });
    this.save = button(t("asked.save"), () => this.keep(), "primary");
    this.node = el("section", { class: "panel what-if", "aria-label": t("asked.what_if.label") },
      el("div", { class: "draw-bar" }, el("h2", { text: t("asked.what_if") }), el("label", { class: "choice" }, t("asked.score"), this.score),
        el("span", { text: t("asked.over") }), this.hours, button(t("asked.try"), () => this.ask(), "primary")),
      this.asker.node, this.result);
  }

  async ask() {
    this.result.replaceChildren();
    const body = await this.draw.body();
    if (body === null) return;
    if (this.score.value === "" && body.score) this.score.value = body.score;
    const { version: _, ...drawn } = body;
    const answer = await this.asker.answer({ ask: "what-if", drawn, hours: Number(this.hours.value) });
    if (answer !== null) this.show(answer);
  }

  show(answer) {
    const { new: fresh, gone, moved, sizes, counts } = answer;
    const events = [...fresh.map((event) => ["new", event]), ...gone.map((event) => ["gone", event]), ...moved.map(({ now }) => ["moved", now])]
      .sort((a, b) => (b[1].picture ? 1 : 0) - (a[1].picture ? 1 : 0) || a[1].time.localeCompare(b[1].time));
    const left = sizes.new + sizes.gone + sizes.moved - events.length;
    const isSame = !(sizes.new + sizes.gone + sizes.moved);
    this.result.replaceChildren(
      el("p", { class: "asked-sentence", text: t(isSame ? "asked.same" : "asked.changes", { same: answer.same, ...sizes }) }),
      el("table", { class: "table" }, el("thead", {}, el("tr", {}, ...["part", "event", "then", "now"].map((key, i) => el("th", { scope: "col", class: i > 1 ? "num" : null, text: t(`asked.column.${key}`) })))),
        el("tbody", {}, ...counts.map((one) => el("tr", {}, el("td", { text: one.part }), el("td", { text: called("kind", one.kind) }),
          el("td", { class: "num", text: one.then }), el("td", { class: "num", text: one.now }))))),
      el("ol", { class: "asked-events" }, ...events.map(([word, event]) => row(word, event))),
      ...(left > 0 ? [el("p", { class: "muted", text: t("asked.more", { count: left }) })] : []), this.save);
  }

  async keep() {
    if (await this.draw.save()) this.save.remove();
  }

  close() {
    this.asker.cancel();
  }
}

/** Makes a test of the recording that is shown: what would be expected comes first, then it may be saved. */
export class TestMaker {
  constructor() {
    this.button = button(t("asked.test"), () => this.ask());
    this.button.hidden = true;
    this.result = el("div", { class: "asked", "aria-live": "polite" });
    this.node = el("div", { class: "test-maker" }, this.result);
  }

  /** Args: a file of the list; gives the second that is shown. */
  show(file, second) {
    this.file = file;
    this.second = second;
    this.button.hidden = false;
  }

  async ask() {
    const { file } = this;
    this.asker?.cancel();
    this.asker = new Asker(file.stream);
    this.node.replaceChildren(this.asker.node, this.result);
    this.result.replaceChildren();
    const isPart = file.kind === "segment" || file.seconds > LONG_S;
    const at = isPart ? { at: Date.parse(file.start) / 1000 + this.second() } : {};
    const answer = await this.asker.answer({ ask: "test", file: decodeURIComponent(file.url.split("/").pop()), ...at });
    if (answer !== null) this.offer(answer, file);
  }

  offer(answer, file) {
    const name = el("input", { value: `${file.stream}-${answer.name}`.slice(0, 64), maxlength: 64, "aria-label": t("asked.test.name") });
    const keep = button(t("asked.test.save"), async () => {
      const saved = await this.asker.save(name.value.trim());
      if (saved !== null) this.result.replaceChildren(el("p", { class: "asked-sentence", text: t("asked.test.saved", { name: saved.name }) }));
    }, "primary");
    const counts = Object.entries(answer.counts);
    this.result.replaceChildren(
      el("p", { class: "asked-sentence", text: t("asked.test.facts", { frames: answer.frames, objects: answer.objects, events: answer.sizes.events }) }),
      counts.length ? el("ul", { class: "asked-counts" }, ...counts.map(([event, count]) => el("li", { text: `${called("kind", event)}: ${count}` })))
        : el("p", { class: "muted", text: t("asked.test.none") }),
      el("ol", { class: "asked-list" }, ...answer.events.map((event) => el("li", { text: words(event.named) }))),
      el("div", { class: "asked-events" }, ...answer.pictures.map((one) => picture(one.picture, t("asked.test.at", { seconds: number(one.time_s, 1) })))),
      el("div", { class: "draw-bar" }, name, keep, button(t("asked.test.discard"), () => this.discard())));
  }

  discard() {
    this.asker.end.hidden = false;
    this.asker.cancel();
    this.result.replaceChildren();
  }

  close() {
    this.asker?.cancel();
  }
}
