// The view of all cameras: a card each with the live picture, its state, rate, age and what is seen.

import { el, number, say } from "./dom.js";
import { screenWidth } from "./feed.js";
import { Picture } from "./picture.js";
import { t } from "./words.js";

const SETTLE_MS = 300;
// enough to see what goes on, and little enough for sixteen cameras on one connection
const FPS_FEW = 0;
const FPS_SOME = 12;
const FPS_MANY = 6;
const FALLBACK_PAUSE_MS = 200;
const GAP_PX = 12;
const FOOT_PX = 40;
const MARGIN_PX = 14;
const SHAPE = 16 / 9;
// cards narrower than this say nothing: the page grows longer instead
const LEAST_PX = 200;
const PHONE_PX = 640;
const MOST_IN_ONE_COLUMN = 4;
// narrower cards have no room for a whole reason, which the camera's own page tells
const REASON_PX = 240;

/** In how many columns this many cards are largest in a window of that size, and how wide one is then. */
export function arranged(count, width, height) {
  if (width < PHONE_PX) {
    const columns = count > MOST_IN_ONE_COLUMN ? 2 : 1;
    return { columns, card: Math.floor((width - GAP_PX * (columns - 1)) / columns) };
  }
  let best = { columns: 1, card: 0 };
  for (let columns = 1; columns <= Math.max(count, 1); columns += 1) {
    const rows = Math.ceil(count / columns);
    const across = (width - GAP_PX * (columns - 1)) / columns;
    const down = ((height - GAP_PX * (rows - 1)) / rows - FOOT_PX) * SHAPE;
    const card = Math.floor(Math.min(across, down));
    if (card > best.card) best = { columns, card };
  }
  if (best.card >= LEAST_PX) return best;
  const columns = Math.max(Math.floor((width + GAP_PX) / (LEAST_PX + GAP_PX)), 1);
  return { columns, card: Math.floor((width - GAP_PX * (columns - 1)) / columns) };
}

class Card {
  constructor(stream, isFallback) {
    this.stream = stream;
    this.picture = new Picture(stream, isFallback, FALLBACK_PAUSE_MS);
    this.badge = el("span", { class: "badge" });
    this.veil = el("p", { class: "veil" });
    this.rate = el("span");
    this.age = el("span");
    this.seen = el("span", { class: "seen" });
    this.frame = el("div", { class: "frame" }, this.picture.node, this.picture.marks.node, this.veil, this.badge);
    this.node = el("a", { class: "card", href: `#/camera/${encodeURIComponent(stream.name)}`, "data-stream": stream.name },
      this.frame,
      el("div", { class: "card-foot" },
        el("h2", { text: stream.name }), this.seen, el("p", { class: "facts muted" }, this.rate, this.age)));
    this.update("open");
  }

  update(connection) {
    const { stream } = this;
    const isLost = connection === "lost";
    const state = isLost ? "connecting" : stream.state;
    this.node.dataset.state = state;
    this.badge.className = `badge state-${state}`;
    say(this.badge, isLost ? t("connection.lost") : stream.stateWord);
    const why = this.frame.clientWidth < REASON_PX ? stream.stateWord : stream.stateWords;
    say(this.veil, isLost ? t("connection.again") : stream.isMoving ? "" : why);
    say(this.rate, stream.isMoving && !isLost ? t("picture.rate", { fps: number(stream.fps, 1) }) : "");
    say(this.age, state === "live" && Number.isFinite(stream.age) ? t("picture.age", { ms: number(stream.age) }) : "");
    const counts = stream.counts.slice(0, 3).map(([name, n]) => `${n} ${name}`).join("  ·  ");
    // what an older picture showed is not there now
    say(this.seen, stream.isMoving && !isLost ? stream.offWords || counts || (stream.result?.objects ? t("grid.empty") : "") : isLost ? t("connection.lost") : stream.stateWord);
    this.node.setAttribute("aria-label", t("grid.card", { name: stream.name, state: stream.stateWords, seen: stream.isMoving ? counts || t("grid.empty") : "" }));
  }
}

export class GridView {
  constructor(store, source, isFallback) {
    this.store = store;
    this.source = source;
    this.cards = new Map([...store.streams].map(([name, stream]) => [name, new Card(stream, isFallback)]));
    this.node = el("section", { class: "grid", "aria-labelledby": "all-cameras" },
      el("h1", { id: "all-cameras", class: "unseen", text: t("page.all") }), ...[...this.cards.values()].map((c) => c.node));
    this.visible = new Set();
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: "100px" });
    for (const card of this.cards.values()) this.observer.observe(card.node);
    this.onResize = () => this.arrange();
    window.addEventListener("resize", this.onResize);
    if (!this.cards.size) this.node.append(el("p", { class: "notice", text: t("grid.none") }));
  }

  /** Fill the window: called when the node is on the page, and when the window has another size. */
  arrange() {
    if (!this.cards.size || !this.node.isConnected) return;
    const top = this.node.getBoundingClientRect().top + window.scrollY;
    const height = window.innerHeight - top - MARGIN_PX;
    const { columns, card } = arranged(this.cards.size, this.node.clientWidth, height);
    this.node.style.setProperty("--height", this.node.clientWidth < PHONE_PX ? "auto" : `${height}px`);
    this.node.style.setProperty("--columns", columns);
    this.node.style.setProperty("--card", `${card}px`);
    this.watchSoon();
  }

  /** Only what is on screen is asked for. */
  seen(entries) {
    for (const entry of entries) {
      const name = entry.target.dataset.stream;
      if (entry.isIntersecting) this.visible.add(name);
      else this.visible.delete(name);
    }
    this.watchSoon();
  }

  watchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const names = [...this.cards.keys()].filter((name) => this.visible.has(name));
      const fps = names.length > 6 ? FPS_MANY : names.length > 2 ? FPS_SOME : FPS_FEW;
      if (!names.length) return;
      this.store.watch(names);
      this.source.watch(names, fps, true, screenWidth(this.cards.get(names[0]).frame));
    }, this.timer ? SETTLE_MS : 0);
  }

  message({ json, jpeg }) {
    if (jpeg) this.cards.get(json.stream)?.picture.show(jpeg, json);
  }

  tick() {
    for (const card of this.cards.values()) card.update(this.store.connection);
  }

  events() {}

  close() {
    clearTimeout(this.timer);
    this.observer.disconnect();
    window.removeEventListener("resize", this.onResize);
    for (const card of this.cards.values()) card.picture.close();
  }
}
