// Drawing and changing lines, zones and privacy masks on the picture. They are saved in the device's configuration
// where it allows that, and given as text for it where it does not.

import { el, number, say, svg } from "./dom.js";
import { Editor } from "./edit.js";
import { crossesItself, inCamera, inPicture, masksToml } from "./mask.js";
import { t } from "./words.js";

const KINDS = {
  zone: { table: "zones", least: 3 },
  line: { table: "lines", least: 2 },
  mask: { table: "masks", least: 3 },
};
const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const WATCHED = ["loiter_s", "stopped_s", "crowd_count"];
const CLOSE_PX = 14;
const DOUBLE_MS = 450;
const KEY_STEP = 0.01;
const watchedIn = (zone) => Object.fromEntries(WATCHED.map((key) => [key, zone[key] ?? null]));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class DrawTool {
  /** Args: the stream, the element that holds the picture, whether the device saves what is drawn. */
  constructor(stream, frame, canEdit) {
    this.stream = stream;
    this.frame = frame;
    this.editor = canEdit ? new Editor(stream.name) : null;
    this.shapes = [];
    this.version = null;
    this.kind = null;
    this.points = [];
    this.layer = svg("svg", { class: "draw-layer", role: "group", "aria-label": t("draw.corners") });
    frame.append(this.layer);
    this.layer.addEventListener("pointerdown", (event) => this.down(event));
    this.layer.addEventListener("pointermove", (event) => this.move(event));
    this.layer.addEventListener("pointerup", () => this.drop());
    this.layer.addEventListener("pointercancel", () => this.drop());
    this.layer.addEventListener("keydown", (event) => this.nudge(event));
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    this.node = this.controls();
    this.fit();
    this.takeDraft();
  }

  controls() {
    this.buttons = Object.keys(KINDS).map((kind) => el("button", {
      class: "button", type: "button", "aria-pressed": "false", "data-kind": kind, text: t(`draw.${kind}`),
      onclick: () => this.start(this.kind === kind ? null : kind),
    }));
    this.hint = el("p", { class: "muted small", role: "status", "aria-live": "polite" });
    this.list = el("ul", { class: "shape-list" });
    this.text = el("textarea", { class: "toml", rows: 8, spellcheck: "false", readonly: true, "aria-label": t("draw.text") });
    this.copyButton = el("button", { class: "button primary", type: "button", text: t("draw.copy"), onclick: () => this.copy() });
    this.saveButton = el("button", { class: "button primary", type: "button", text: t("draw.save"), hidden: true, onclick: () => this.save() });
    this.dropButton = el("button", { class: "button", type: "button", text: t("draw.discard"), hidden: true, onclick: () => this.discard() });
    this.copying = el("div", { hidden: this.editor !== null }, this.text, this.copyButton);
    this.result = el("div", { class: "draw-result", hidden: true }, this.list, this.copying);
    this.editButton = this.editor && el("button", { class: "button", type: "button", text: t("draw.edit"), onclick: () => this.load() });
    return el("section", { class: "panel draw", "aria-label": t("draw.tools") },
      el("div", { class: "draw-bar" }, el("h2", { text: t("draw.title") }), this.editButton, ...this.buttons,
        el("button", { class: "button", type: "button", text: t("draw.undo"), onclick: () => this.undo() }), this.saveButton, this.dropButton),
      this.hint, this.result, this.editor?.node);
  }

  /** Lay the drawing over the picture itself, whose size is known only when the first one has come, and may change. */
  fit() {
    const { width, height } = this.stream;
    const [w, h] = this.size || [width, height];
    this.layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.size = [width, height];
    if (w === width && h === height) return;
    for (const shape of this.shapes) shape.points = shape.points.map(([x, y]) => [x * width / w, y * height / h]);
    this.render();
  }

  // what is in the file, what was drawn and is not saved

  /** Take what the device has; what was drawn here meanwhile and is not saved yet stays. */
  async load() {
    const answer = await this.editor.drawn();
    if (answer === null) return false;
    const fresh = this.version === null ? this.shapes.filter(({ was }) => was === undefined) : [];
    const { width, height, info } = this.stream;
    const pixels = ({ points_px: px, points_share: share }) => px || share.map(([x, y]) => [x * width, y * height]);
    const drawn = (kind, parts) => parts.map((part) => ({
      kind, name: part.name, was: part.name, points: pixels(part), classes: part.classes || [], schedules: part.schedules || [],
      ...(kind === "zone" ? watchedIn(part) : {}),
    }));
    const masks = answer.masks.map((camera, i) => ({
      kind: "mask", name: `mask-${i + 1}`, was: true, camera,
      points: camera.map((point) => inPicture(point, info)).map(([x, y]) => [x * width, y * height]),
    }));
    this.version = answer.version;
    this.score ??= answer.score;
    this.shapes = [...drawn("line", answer.lines), ...drawn("zone", answer.zones), ...masks, ...fresh];
    if (this.editButton) this.editButton.hidden = true;
    this.changed(fresh.length > 0);
    return true;
  }

  /** What would be saved, or null; the words say why. */
  async body() {
    // what is not in view would be taken out of the file
    if (this.version === null && !(await this.load())) return null;
    const crossed = this.shapes.find(({ kind, points }) => kind === "mask" && crossesItself(points));
    if (crossed) {
      say(this.hint, t("draw.crossed", { name: crossed.name }));
      return null;
    }
    const { width, height, info } = this.stream;
    const shares = (points) => points.map(([x, y]) => [x / width, y / height]);
    const tables = (wanted) => this.shapes.filter(({ kind }) => kind === wanted).map(({ name, was, points, classes, schedules, ...rest }) => ({
      name, ...(was && was !== name ? { was } : {}), points_share: shares(points), classes: classes || [], schedules: schedules || [],
      ...(wanted === "zone" ? watchedIn(rest) : {}) }));
    const masks = this.shapes.filter(({ kind }) => kind === "mask")
      .map(({ camera, points }) => camera || shares(points).map((point) => inCamera(point, info)));
    return { version: this.version, lines: tables("line"), zones: tables("zone"), masks, ...(this.score === undefined ? {} : { score: this.score }) };
  }

  /** Whether it was saved. */
  async save() {
    const body = await this.body();
    const saved = body && await this.editor.save(body);
    if (saved === null) return false;
    this.version = saved.version;
    for (const shape of this.shapes) shape.was = shape.kind === "mask" ? true : shape.name;
    this.changed(false);
    say(this.hint, t("draw.saved"));
    return true;
  }

  /** The least score of a detection, next to what is drawn; null: the model's own. */
  setScore(score) {
    this.score = score;
    this.keep();
  }

  async discard() {
    this.shapes = [];
    this.score = undefined;
    this.changed(false);
    if (this.version === null) return;
    this.version = null;
    await this.load();
  }

  get draftKey() {
    return `drawn:${this.stream.name}`;
  }

  /** After every change: shown, and kept in the browser until it is saved. */
  changed(isUnsaved = true) {
    this.isUnsaved = isUnsaved && (this.shapes.length > 0 || this.version !== null);
    if (this.isUnsaved) localStorage.setItem(this.draftKey, JSON.stringify({ version: this.version, shapes: this.shapes, size: this.size }));
    else localStorage.removeItem(this.draftKey);
    this.render();
  }

  /** What was drawn before the page was loaded again. */
  takeDraft() {
    try {
      const draft = JSON.parse(localStorage.getItem(this.draftKey) || "null");
      if (!draft?.shapes?.length && !draft?.version) return;
      this.shapes = draft.shapes;
      this.version = draft.version;
      this.size = draft.size;
      this.fit();
    } catch {
      localStorage.removeItem(this.draftKey);
      return;
    }
    if (this.editButton && this.version !== null) this.editButton.hidden = true;
    this.changed();
    say(this.hint, t(this.editor ? "draw.unsaved" : "draw.before"));
  }

  // the mouse and the keyboard

  start(kind) {
    this.fit();
    this.kind = kind;
    this.points = [];
    this.layer.classList.toggle("is-drawing", kind !== null);
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    say(this.hint, kind === null ? "" : kind === "line"
      ? t("draw.how.line")
      : t("draw.how"));
    this.render();
  }

  at(event) {
    const matrix = this.layer.getScreenCTM();
    if (!matrix) return [0, 0];
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    return this.within([point.x, point.y]);
  }

  within([x, y]) {
    return [Math.min(Math.max(x, 0), this.stream.width), Math.min(Math.max(y, 0), this.stream.height)];
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
    const near = (a, b, px) => Math.hypot(a[0] - b[0], a[1] - b[1]) < px * this.pixel;
    // pressed twice at one place: a corner was made by the first press, the second closes. The browser's own double
    // click does not come, as the handle under the pointer is another one by then.
    const isDouble = this.points.length > 0 && event.timeStamp - this.pressedMs < DOUBLE_MS && near(point, this.points.at(-1), 6);
    this.pressedMs = event.timeStamp;
    if (isDouble || (this.points.length >= 3 && near(point, this.points[0], CLOSE_PX))) {
      this.finish();
      return;
    }
    if (!this.points.length || !near(point, this.points.at(-1), 3)) this.points.push(point);
    if (this.kind === "line" && this.points.length === 2) this.finish();
    else this.render();
  }

  move(event) {
    if (this.dragged) {
      const [shape, index] = this.dragged;
      this.put(shape, index, this.at(event));
      this.render();
    } else if (this.kind !== null && this.points.length) {
      this.cursor = this.at(event);
      this.render();
    }
  }

  put(shape, index, point) {
    shape.points[index] = point;
    // a mask that was moved is no longer that of the file
    delete shape.camera;
  }

  drop() {
    if (this.dragged) this.changed();
    this.dragged = null;
  }

  /** The arrow keys move the corner that has the focus. */
  nudge(event) {
    const handle = event.target.closest?.(".handle");
    const step = ARROWS[event.key];
    if (!handle || !step || this.kind !== null) return;
    event.preventDefault();
    const shape = this.shapes[handle.dataset.shape];
    const index = Number(handle.dataset.point);
    const [x, y] = shape.points[index];
    this.put(shape, index, this.within([x + step[0] * KEY_STEP * this.stream.width, y + step[1] * KEY_STEP * this.stream.height]));
    this.changed();
    this.layer.querySelector(`[data-shape="${handle.dataset.shape}"][data-point="${index}"]`)?.focus();
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
    const names = new Set(this.shapes.map(({ name }) => name));
    let number = 1;
    while (names.has(`${kind}-${number}`)) number += 1;
    this.shapes.push({ kind, name: `${kind}-${number}`, points: this.points, classes: [], schedules: [] });
    this.start(null);
    this.changed();
  }

  undo() {
    if (this.points.length) {
      this.points.pop();
      this.render();
      return;
    }
    this.shapes.pop();
    this.changed();
  }

  // what is shown

  render() {
    this.cursor = this.points.length ? this.cursor : null;
    const open = this.points.length ? [{ kind: this.kind, points: [...this.points, ...(this.cursor ? [this.cursor] : [])], open: true }] : [];
    this.layer.replaceChildren(...[...this.shapes, ...open].flatMap((shape, index) => this.drawn(shape, index)));
    this.result.hidden = !this.shapes.length;
    this.saveButton.hidden = this.dropButton.hidden = !(this.editor && this.isUnsaved);
    if (!this.dragged) this.list.replaceChildren(...this.shapes.map((shape, index) => this.row(shape, index)));
    this.text.value = this.toml();
  }

  row(shape, index) {
    const button = (text, onclick) => el("button", { class: "button", type: "button", text, "aria-label": `${text} ${shape.name}`, onclick });
    const more = shape.kind === "mask" || !this.editor ? [] : [this.classes(shape), this.schedule(shape), ...(shape.kind === "zone" ? [this.watched(shape)] : [])];
    return el("li", {},
      el("input", { value: shape.name, "aria-label": t(`draw.name.${shape.kind}`, { number: index + 1 }), maxlength: 64,
        oninput: (event) => { shape.name = event.target.value; this.text.value = this.toml(); this.keep(); } }),
      ...(shape.kind === "line" ? [button(t("draw.turn"), () => { shape.points.reverse(); this.changed(); })] : []),
      button(t("draw.remove"), () => { this.shapes.splice(index, 1); this.changed(); }),
      ...more);
  }

  /** Keep a change that the list shows already: to draw it again would take the focus away. */
  keep() {
    this.isUnsaved = true;
    this.saveButton.hidden = this.dropButton.hidden = !this.editor;
    localStorage.setItem(this.draftKey, JSON.stringify({ version: this.version, shapes: this.shapes, size: this.size }));
  }

  classes(shape) {
    const names = this.stream.model.classes || [];
    const summary = el("summary", {});
    const tell = () => say(summary, shape.classes.length ? shape.classes.join(", ") : t("draw.classes.all"));
    const boxes = names.map((name) => el("label", { class: "choice" },
      el("input", { type: "checkbox", checked: shape.classes.includes(name), onchange: (event) => {
        shape.classes = names.filter((one) => (one === name ? event.target.checked : shape.classes.includes(one)));
        tell();
        this.keep();
      } }), name));
    tell();
    return el("details", { class: "choices" }, summary, ...boxes);
  }

  /** What is watched in a zone: staying, standing still, many at once. */
  watched(shape) {
    const summary = el("summary", {});
    const tell = () => say(summary, WATCHED.filter((key) => shape[key]).map((key) => t(`draw.watched.${key}.of`, { value: number(shape[key], 1) })).join(", ") || t("draw.watched.none"));
    const inputs = WATCHED.map((key) => el("label", { class: "choice" }, t(`draw.watched.${key}`),
      el("input", { type: "number", class: "score", min: key === "crowd_count" ? 1 : 0.1, step: key === "crowd_count" ? 1 : 0.1, value: shape[key] ?? "",
        onchange: (event) => { shape[key] = event.target.value === "" ? null : Number(event.target.value); tell(); this.keep(); } })));
    tell();
    return el("details", { class: "choices" }, summary, ...inputs);
  }

  /** One time of the week; a file may hold more of them, which are left as they are. */
  schedule(shape) {
    const summary = el("summary", {});
    const [first] = shape.schedules;
    const tell = () => {
      const [one] = shape.schedules;
      const times = one ? `${one.start_at || "00:00"}–${one.end_at || "00:00"}` : "";
      say(summary, shape.schedules.length > 1 ? t("draw.times.file", { count: shape.schedules.length }) : one
        ? `${(one.days || DAYS).length === 7 ? t("draw.every_day") : one.days.map((day) => t(`day.${day}`)).join(", ")} ${times}` : t("draw.always"));
    };
    tell();
    if (shape.schedules.length > 1) return el("details", { class: "choices" }, summary);
    const value = { days: first?.days || DAYS, start_at: (first?.start_at || "00:00").slice(0, 5), end_at: (first?.end_at || "00:00").slice(0, 5) };
    const take = () => {
      const isAlways = value.days.length === 7 && value.start_at === value.end_at;
      const rest = first?.time_zone ? { time_zone: first.time_zone } : {};
      shape.schedules = isAlways || !value.days.length ? [] : [{ ...rest, ...value, days: [...value.days] }];
      tell();
      this.keep();
    };
    const days = DAYS.map((day) => el("label", { class: "choice" },
      el("input", { type: "checkbox", checked: value.days.includes(day), onchange: (event) => {
        value.days = DAYS.filter((one) => (one === day ? event.target.checked : value.days.includes(one)));
        take();
      } }), t(`day.${day}`)));
    const times = ["start_at", "end_at"].map((key) => el("label", { class: "choice" }, key === "start_at" ? t("draw.from") : t("draw.to"),
      el("input", { type: "time", value: value[key], onchange: (event) => { value[key] = event.target.value || "00:00"; take(); } })));
    return el("details", { class: "choices" }, summary, ...days, ...times);
  }

  drawn({ kind, name, points, open }, index) {
    const text = points.map((point) => point.map((v) => v.toFixed(1)).join(",")).join(" ");
    const parts = [svg(kind === "line" || open ? "polyline" : "polygon", { points: text, class: `shape shape-${kind}` })];
    if (kind === "line" && points.length === 2) parts.push(this.arrow(points));
    for (const [i, [cx, cy]] of points.entries()) {
      parts.push(svg("circle", { cx, cy, r: 6 * this.pixel, class: "handle", "data-shape": index, "data-point": i,
        ...(open ? {} : { tabindex: 0, role: "button", "aria-label": t("draw.corner", { number: i + 1, name }) }) }));
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
      ...(tables.length ? [`# ${t("file.shapes", { name: streamName })}\n${tables.join("\n")}`] : []),
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
    say(this.copyButton, t("draw.copied"));
    setTimeout(() => say(this.copyButton, t("draw.copy")), 1500);
  }

  close() {
    document.removeEventListener("keydown", this.onKey);
  }
}
