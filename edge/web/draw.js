// Drawing zones, counting lines and privacy masks on the picture, and their text for the configuration file.

import { el, say, svg } from "./dom.js";
import { masksToml } from "./mask.js";

const KINDS = {
  zone: { table: "zones", least: 3, words: "Zone" },
  line: { table: "lines", least: 2, words: "Line" },
  mask: { least: 3, words: "Privacy mask" },
};
const CLOSE_PX = 14;

export class DrawTool {
  /** Args: the stream, the element that holds the picture. */
  constructor(stream, frame) {
    this.stream = stream;
    this.frame = frame;
    this.shapes = [];
    this.kind = null;
    this.points = [];
    this.layer = svg("svg", { class: "draw-layer", "aria-hidden": "true" });
    frame.append(this.layer);
    this.layer.addEventListener("pointerdown", (event) => this.down(event));
    this.layer.addEventListener("pointermove", (event) => this.move(event));
    this.layer.addEventListener("pointerup", () => { this.dragged = null; });
    this.layer.addEventListener("dblclick", () => this.finish());
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    this.node = this.controls();
    this.fit();
  }

  controls() {
    this.buttons = Object.entries(KINDS).map(([kind, { words }]) => el("button", {
      class: "button", type: "button", "aria-pressed": "false", "data-kind": kind, text: words,
      onclick: () => this.start(this.kind === kind ? null : kind),
    }));
    this.hint = el("p", { class: "muted small", role: "status", "aria-live": "polite" });
    this.list = el("ul", { class: "shape-list" });
    this.text = el("textarea", { class: "toml", rows: 8, spellcheck: "false", readonly: true, "aria-label": "Text for the configuration file" });
    this.copyButton = el("button", { class: "button primary", type: "button", text: "Copy", onclick: () => this.copy() });
    this.result = el("div", { class: "draw-result", hidden: true }, this.list, this.text, this.copyButton);
    return el("section", { class: "panel draw", "aria-label": "Draw lines and zones" },
      el("div", { class: "draw-bar" }, el("h2", { text: "Draw" }), ...this.buttons,
        el("button", { class: "button", type: "button", text: "Undo", onclick: () => this.undo() })),
      this.hint, this.result);
  }

  /** Lay the drawing over the picture itself, which does not fill its frame when the shapes differ. */
  fit() {
    this.layer.setAttribute("viewBox", `0 0 ${this.stream.width} ${this.stream.height}`);
  }

  start(kind) {
    this.kind = kind;
    this.points = [];
    this.layer.classList.toggle("is-drawing", kind !== null);
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    say(this.hint, kind === null ? "" : kind === "line"
      ? "Click where the line begins and where it ends. What crosses it from left to right, seen from the beginning, counts as in."
      : "Click the corners; click the first one again, double-click or press Enter to close. Escape leaves.");
    this.render();
  }

  at(event) {
    const matrix = this.layer.getScreenCTM();
    if (!matrix) return [0, 0];
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    return [within(point.x, this.stream.width), within(point.y, this.stream.height)];
  }

  get pixel() {
    return 1 / (this.layer.getScreenCTM()?.a || 1);
  }

  down(event) {
    const handle = event.target.closest?.(".handle");
    if (this.kind === null && handle) {
      this.dragged = [this.shapes[handle.dataset.shape], Number(handle.dataset.point)];
      this.layer.setPointerCapture(event.pointerId);
      return;
    }
    if (this.kind === null) return;
    event.preventDefault();
    const point = this.at(event);
    const first = this.points[0];
    const near = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) < CLOSE_PX * this.pixel;
    if (this.points.length >= 3 && near(point, first)) {
      this.finish();
      return;
    }
    // the second press of a double click is no corner of its own
    if (!this.points.length || Math.hypot(...point.map((v, i) => v - this.points.at(-1)[i])) > 3 * this.pixel) this.points.push(point);
    if (this.kind === "line" && this.points.length === 2) this.finish();
    else this.render();
  }

  move(event) {
    if (this.dragged) {
      const [shape, index] = this.dragged;
      shape.points[index] = this.at(event);
      this.render();
    } else if (this.kind !== null && this.points.length) {
      this.cursor = this.at(event);
      this.render();
    }
  }

  key(event) {
    if (this.kind === null || event.target.closest?.("input, textarea")) return;
    if (event.key === "Escape") this.start(null);
    if (event.key === "Enter" && this.points.length) {
      event.preventDefault();
      this.finish();
    }
    if (event.key === "Backspace" && this.points.length) this.undo();
  }

  finish() {
    const { kind } = this;
    if (kind === null || this.points.length < KINDS[kind].least) return;
    const count = this.shapes.filter((shape) => shape.kind === kind).length + 1;
    this.shapes.push({ kind, name: `${kind}-${count}`, points: this.points });
    this.start(null);
  }

  undo() {
    if (this.points.length) this.points.pop();
    else this.shapes.pop();
    this.render();
  }

  render() {
    this.cursor = this.points.length ? this.cursor : null;
    const open = this.points.length ? [{ kind: this.kind, points: [...this.points, ...(this.cursor ? [this.cursor] : [])], open: true }] : [];
    this.layer.replaceChildren(...[...this.shapes, ...open].flatMap((shape, index) => this.drawn(shape, index)));
    this.result.hidden = !this.shapes.length;
    this.list.replaceChildren(...this.shapes.map((shape, index) => el("li", {},
      el("input", { value: shape.name, "aria-label": `Name of ${KINDS[shape.kind].words.toLowerCase()} ${index + 1}`, maxlength: 64,
        oninput: (event) => { shape.name = event.target.value; this.text.value = this.toml(); } }),
      el("button", { class: "button", type: "button", "aria-label": `Remove ${shape.name}`, text: "Remove",
        onclick: () => { this.shapes.splice(index, 1); this.render(); } }))));
    this.text.value = this.toml();
  }

  drawn({ kind, points, open }, index) {
    const text = points.map((point) => point.map((v) => v.toFixed(1)).join(",")).join(" ");
    const parts = [svg(kind === "line" || open ? "polyline" : "polygon", { points: text, class: `shape shape-${kind}` })];
    if (kind === "line" && points.length === 2) parts.push(this.arrow(points));
    for (const [i, [cx, cy]] of points.entries()) {
      parts.push(svg("circle", { cx, cy, r: 6 * this.pixel, class: "handle", "data-shape": index, "data-point": i }));
    }
    return parts;
  }

  /** From the middle of a line to its right-hand side: the way that counts as in. */
  arrow([[x1, y1], [x2, y2]]) {
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const size = 26 * this.pixel;
    const [nx, ny] = [-(y2 - y1) / length, (x2 - x1) / length];
    const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
    const [tx, ty] = [mx + nx * size, my + ny * size];
    const wing = (side) => `${tx - (nx + side * ny) * size * 0.35},${ty - (ny - side * nx) * size * 0.35}`;
    return svg("path", { d: `M${mx},${my}L${tx},${ty}M${wing(1)}L${tx},${ty}L${wing(-1)}`, class: "shape shape-line" });
  }

  /** The text for this stream, with corners as shares of the picture so that another resolution changes nothing. */
  toml() {
    const { name: streamName, width, height, info } = this.stream;
    const shapes = this.shapes.map((shape) => ({ ...shape, points: shape.points.map(([x, y]) => [x / width, y / height]) }));
    const masks = shapes.filter(({ kind }) => kind === "mask");
    const share = ([x, y]) => `[${x.toFixed(4)}, ${y.toFixed(4)}]`;
    const tables = shapes.filter(({ kind }) => kind !== "mask").map(({ kind, name, points }) =>
      `[[streams.analytics.${KINDS[kind].table}]]\nname = ${JSON.stringify(name)}\npoints_share = [${points.map(share).join(", ")}]\n`);
    return [
      ...(masks.length ? [masksToml(streamName, masks, info)] : []),
      ...(tables.length ? [`# below the [[streams]] table of "${streamName}" in edge.toml\n${tables.join("\n")}`] : []),
    ].join("\n");
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text.value);
    } catch {
      // without HTTPS the clipboard is only reachable through a selection
      this.text.select();
      document.execCommand("copy");
    }
    say(this.copyButton, "Copied");
    setTimeout(() => say(this.copyButton, "Copy"), 1500);
  }

  close() {
    document.removeEventListener("keydown", this.onKey);
  }
}
