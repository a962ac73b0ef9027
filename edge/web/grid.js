// The view of all cameras: a card each with the live picture, its state, rate, age and what is seen.

import { el, number, say } from "./dom.js";
import { Picture } from "./picture.js";

const SETTLE_MS = 300;
// enough to see what goes on, and little enough for sixteen cameras on one connection
const FPS_FEW = 0;
const FPS_SOME = 12;
const FPS_MANY = 6;
const FALLBACK_PAUSE_MS = 200;

class Card {
  constructor(stream, isFallback) {
    this.stream = stream;
    this.picture = new Picture(stream, isFallback, FALLBACK_PAUSE_MS);
    this.badge = el("span", { class: "badge" });
    this.veil = el("p", { class: "veil" });
    this.rate = el("span");
    this.age = el("span");
    this.seen = el("span", { class: "seen" });
    this.node = el("a", { class: "card", href: `#/camera/${encodeURIComponent(stream.name)}`, "data-stream": stream.name },
      el("div", { class: "frame" }, this.picture.node, this.veil, this.badge),
      el("div", { class: "card-foot" },
        el("h2", { text: stream.name }), el("p", { class: "facts muted" }, this.rate, this.age), this.seen));
    this.update("open");
  }

  update(connection) {
    const { stream } = this;
    const isLost = connection === "lost";
    const state = isLost ? "connecting" : stream.state;
    this.node.dataset.state = state;
    this.badge.className = `badge state-${state}`;
    say(this.badge, isLost ? "Reconnecting" : stream.stateWords.split(":")[0]);
    say(this.veil, state === "live" ? "" : isLost ? "Connection lost, trying again" : stream.stateWords);
    say(this.rate, state === "live" ? `${number(stream.fps, 1)} fps` : "");
    say(this.age, state === "live" && Number.isFinite(stream.age) ? `${number(stream.age)} ms` : "");
    const counts = stream.counts.slice(0, 3).map(([name, n]) => `${n} ${name}`).join("  ·  ");
    say(this.seen, counts || (stream.result?.objects ? "nothing in view" : ""));
    this.node.setAttribute("aria-label", `${stream.name}: ${stream.stateWords}. ${counts || "nothing in view"}. Open`);
  }
}

export class GridView {
  constructor(store, source, isFallback) {
    this.store = store;
    this.source = source;
    this.cards = new Map([...store.streams].map(([name, stream]) => [name, new Card(stream, isFallback)]));
    this.node = el("section", { class: "grid", "aria-label": "All cameras" }, ...[...this.cards.values()].map((c) => c.node));
    this.node.dataset.count = this.cards.size;
    this.visible = new Set();
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: "100px" });
    for (const card of this.cards.values()) this.observer.observe(card.node);
    if (!this.cards.size) this.node.append(el("p", { class: "notice", text: "No camera is configured yet." }));
  }

  /** Only what is on screen is asked for. */
  seen(entries) {
    for (const entry of entries) {
      const name = entry.target.dataset.stream;
      if (entry.isIntersecting) this.visible.add(name);
      else this.visible.delete(name);
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const names = [...this.cards.keys()].filter((name) => this.visible.has(name));
      const fps = names.length > 6 ? FPS_MANY : names.length > 2 ? FPS_SOME : FPS_FEW;
      if (!names.length) return;
      this.store.watch(names);
      this.source.watch(names, fps);
    }, this.timer ? SETTLE_MS : 0);
  }

  message({ json, jpeg }) {
    if (jpeg) this.cards.get(json.stream)?.picture.show(jpeg);
  }

  tick() {
    for (const card of this.cards.values()) card.update(this.store.connection);
  }

  events() {}

  close() {
    clearTimeout(this.timer);
    this.observer.disconnect();
    for (const card of this.cards.values()) card.picture.close();
  }
}
