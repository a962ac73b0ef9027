// Draws what was found over the picture: boxes, labels, trails, masks, key points, zones and lines, in the pixels of the
// screen. What is drawn belongs to the picture that is shown; of a picture that came annotated nothing is drawn twice.

import { el } from "./dom.js";
import { placed } from "./labels.js";

const TRAIL_S = 2;
const MAX_TRAIL_POINTS = 96;
const MASK_OPACITY = 0.45;
const ZONE_OPACITY = 0.16;
const LEAST_POINT_SCORE = 0.3;
const TICKS_PER_S = 90000;
const SEAM = "#101216";
const PANEL = "rgb(20 23 30 / 82%)";
const MAX_WIDTHS = 1000;
const MAX_ROWS = 5;
const LEAST_FOR_COUNTS_PX = 260;

/** Dark or light text, whichever has more contrast on this colour (#rrggbb). */
function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#101218" : "#ffffff";
}

/** Where the tracks of a stream were, for as long as trails are. */
class Trails {
  constructor() {
    this.paths = new Map();
    this.lastS = 0;
  }

  take(objects, nowS, stepPx) {
    if (nowS < this.lastS || nowS - this.lastS > TRAIL_S) this.paths.clear();
    this.lastS = nowS;
    for (const { track_id: id, xyxy: [x1, , x2, y2] } of objects) {
      if (id === null) continue;
      const path = this.paths.get(id) || [];
      this.paths.set(id, path);
      const last = path.at(-1);
      // the lower edge of a box jumps when somebody passes in front
      const [x, y] = last ? [(last.x + (x1 + x2) / 2) / 2, (last.y + y2) / 2] : [(x1 + x2) / 2, y2];
      if (!last || Math.abs(last.x - x) + Math.abs(last.y - y) >= stepPx) path.push({ x, y, s: nowS });
      if (path.length > MAX_TRAIL_POINTS) path.shift();
    }
    for (const [id, path] of this.paths) {
      while (path.length && path[0].s < nowS - TRAIL_S) path.shift();
      if (!path.length) this.paths.delete(id);
    }
  }
}

export class MarksLayer {
  /** Args: the stream, whose colours, limbs and size count. The node lies over its picture, which is shown whole. */
  constructor(stream) {
    this.stream = stream;
    this.node = el("canvas", { class: "marks", "aria-hidden": "true", "data-stream": stream.name });
    this.context = this.node.getContext("2d");
    this.trails = new Trails();
    this.places = new Map();
    this.widths = new Map();
    this.observer = new ResizeObserver(() => this.paint());
    this.observer.observe(this.node);
  }

  /** Draw what belongs to the picture that is shown from now on: a result of the feed; null for nothing. */
  show(result) {
    // a line without shapes belongs to a picture that everything is drawn into
    this.result = result?.shapes ? result : null;
    if (this.result) {
      const { width, height, objects = [], ticks } = this.result;
      this.trails.take(objects, ticks / TICKS_PER_S, Math.max(3 * Math.min(width, height) / 720, 2));
      if (this.result.tint) this.takeTint(this.result);
    }
    this.paint();
    this.node.dataset.seq = this.result?.seq ?? "";
  }

  /** A picture of the classes takes a moment to be decoded; the one before stays meanwhile. */
  async takeTint(result) {
    const bytes = Uint8Array.from(atob(result.tint), (c) => c.charCodeAt(0));
    this.tint = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    if (this.result === result) this.paint();
  }

  paint() {
    const { node, context: c, result } = this;
    const ratio = window.devicePixelRatio || 1;
    const [wide, high] = [node.clientWidth, node.clientHeight];
    if (node.width !== Math.round(wide * ratio) || node.height !== Math.round(high * ratio)) {
      node.width = Math.round(wide * ratio);
      node.height = Math.round(high * ratio);
    }
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, node.width, node.height);
    if (!result || !wide || !high) return;
    // the picture lies in the middle of its place; from here on all lengths are those of the page
    const scale = Math.min(wide / result.width, high / result.height);
    this.scale = scale;
    this.bounds = { width: result.width * scale, height: result.height * scale };
    this.line = wide < 420 ? 1.5 : 2;
    this.text = wide < 420 ? 11 : wide < 1000 ? 12 : 13;
    c.setTransform(ratio, 0, 0, ratio, (wide - this.bounds.width) / 2 * ratio, (high - this.bounds.height) / 2 * ratio);
    c.beginPath();
    c.rect(0, 0, this.bounds.width, this.bounds.height);
    c.save();
    c.clip();
    c.font = `600 ${this.text}px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif`;
    c.lineJoin = c.lineCap = "round";
    c.textBaseline = "middle";
    if (result.tint && this.tint) c.drawImage(this.tint, 0, 0, this.bounds.width, this.bounds.height);
    const taken = [...this.badge(), ...this.paintRows(result)];
    const names = this.paintShapes(result.shapes, taken);
    this.paintObjects(result.objects || [], [...taken, ...names.map(({ at }) => at)]);
    // over the boxes, which would strike them out
    for (const { at, label } of names) this.paintLabel(at, label.parts);
    c.restore();
  }

  /** Where the badge over the picture lies, which would hide a name. */
  badge() {
    const badge = this.node.parentElement?.querySelector(".badge");
    if (!badge) return [];
    const x = badge.offsetLeft - (this.node.clientWidth - this.bounds.width) / 2;
    const y = badge.offsetTop - (this.node.clientHeight - this.bounds.height) / 2;
    return [{ x, y, width: badge.offsetWidth, height: badge.offsetHeight }];
  }

  // what is found

  paintObjects(objects, taken) {
    const things = objects.map((object) => this.thing(object)).filter(({ box }) => box.x2 - box.x1 >= 2 && box.y2 - box.y1 >= 2)
      .sort((a, b) => a.box.y2 - b.box.y2);
    for (const thing of things) this.paintMask(thing);
    for (const thing of things) this.paintTrail(thing);
    for (const thing of things) this.paintBox(thing);
    for (const thing of things) this.paintFigure(thing);
    // near ones first: they have their names where there is not room for all
    things.reverse();
    const answers = placed(things.map((thing) => ({ box: thing.box, sizes: thing.labels, last: this.places.get(thing.id) })), this.bounds, taken);
    this.places.clear();
    things.forEach((thing, i) => {
      if (!answers[i]) return;
      if (thing.id !== null) this.places.set(thing.id, answers[i]);
      this.paintLabel(answers[i], thing.labels[answers[i].size].parts);
    });
    this.labels = answers;
  }

  thing(object) {
    const [x1, y1, x2, y2] = object.xyxy.map((value) => value * this.scale);
    const colour = this.stream.colourOf(object.class);
    const name = object.labels?.length ? `${object.labels[0].class} ${object.class}` : object.class;
    const id = object.track_id;
    const words = [{ text: id === null ? name : `${name} #${id}`, fill: colour }];
    const score = [{ text: `${Math.min(Math.max(Math.round(object.score * 100), 0), 99)} %`, fill: PANEL }];
    const short = id === null ? [] : [this.label([{ text: `#${id}`, fill: colour }])];
    const long = [this.label([...words, ...score]), this.label(words)];
    // a narrow box has no room for more than who it is; its colour tells the class
    const isNarrow = x2 - x1 < 0.8 * long[1].width && short.length;
    return { object, id, colour, box: { x1, y1, x2, y2 }, labels: isNarrow ? short : [...long, ...short] };
  }

  label(parts) {
    const pad = this.text * 0.42;
    const sized = parts.map((part) => ({ ...part, width: this.widthOf(part.text) + 2 * pad, pad }));
    return { parts: sized, width: sized.reduce((sum, { width }) => sum + width, 0), height: Math.round(this.text * 1.5) };
  }

  widthOf(text) {
    const key = `${this.text} ${text}`;
    if (this.widths.size > MAX_WIDTHS) this.widths.clear();
    if (!this.widths.has(key)) this.widths.set(key, this.context.measureText(text).width);
    return this.widths.get(key);
  }

  paintLabel({ x, y, width, height }, parts) {
    const c = this.context;
    c.save();
    c.beginPath();
    c.roundRect(x, y, width, height, 3);
    c.clip();
    for (const part of parts) {
      c.fillStyle = part.fill;
      c.fillRect(x, y, part.width + 0.5, height);
      c.fillStyle = part.fill === PANEL ? "#ffffff" : inkOn(part.fill);
      c.fillText(part.text, x + part.pad, y + height / 2 + 0.5);
      x += part.width;
    }
    c.restore();
  }

  paintBox({ object, colour, box: { x1, y1, x2, y2 } }) {
    const c = this.context;
    c.beginPath();
    if (object.corners) this.path(object.corners, true);
    else c.roundRect(x1, y1, x2 - x1, y2 - y1, Math.min(6, (x2 - x1) / 3, (y2 - y1) / 3));
    this.stroke(colour);
  }

  /** The path that is there, with a dark seam that shows it on any background. */
  stroke(colour) {
    const c = this.context;
    c.strokeStyle = SEAM;
    c.globalAlpha = 0.6;
    c.lineWidth = this.line + 1.5;
    c.stroke();
    c.globalAlpha = 1;
    c.strokeStyle = colour;
    c.lineWidth = this.line;
    c.stroke();
  }

  path(points, isClosed) {
    points.forEach(([x, y], i) => this.context[i ? "lineTo" : "moveTo"](x * this.scale, y * this.scale));
    if (isClosed) this.context.closePath();
  }

  paintMask({ object, colour }) {
    if (!object.outlines) return;
    const c = this.context;
    c.beginPath();
    for (const flat of object.outlines) {
      for (let i = 0; i < flat.length; i += 2) c[i ? "lineTo" : "moveTo"](flat[i] * this.scale, flat[i + 1] * this.scale);
      c.closePath();
    }
    c.globalAlpha = MASK_OPACITY;
    c.fillStyle = colour;
    c.fill("evenodd");
    c.globalAlpha = 1;
  }

  paintTrail({ id, colour }) {
    const path = id === null ? null : this.trails.paths.get(id);
    if (!path || path.length < 2) return;
    const c = this.context;
    c.strokeStyle = colour;
    for (let i = 1; i < path.length; i += 1) {
      // thin and faint where it began
      const share = i / path.length;
      c.globalAlpha = 0.25 + 0.75 * share;
      c.lineWidth = this.line * (0.5 + share / 2);
      c.beginPath();
      c.moveTo(path[i - 1].x * this.scale, path[i - 1].y * this.scale);
      c.lineTo(path[i].x * this.scale, path[i].y * this.scale);
      c.stroke();
    }
    c.globalAlpha = 1;
  }

  paintFigure({ object: { keypoints }, colour }) {
    if (!keypoints) return;
    const c = this.context;
    const isSeen = (point) => point && point[2] >= LEAST_POINT_SCORE;
    for (const pair of this.stream.info.limbs || []) {
      const ends = pair.map((i) => keypoints[i]);
      if (!ends.every(isSeen)) continue;
      c.beginPath();
      this.path(ends, false);
      this.stroke(colour);
    }
    for (const [x, y] of keypoints.filter(isSeen)) {
      c.beginPath();
      c.arc(x * this.scale, y * this.scale, this.line * 1.4, 0, 2 * Math.PI);
      c.fillStyle = colour;
      c.fill();
      c.lineWidth = 1;
      c.strokeStyle = SEAM;
      c.stroke();
    }
  }

  // zones and lines, and what is said of the whole picture

  /** Answers their names and where these will stand. */
  paintShapes(shapes, taken) {
    const { colours } = this.stream;
    const names = shapes.filter(({ points }) => points.length > 1).map(({ kind, name, text, points }, i) => {
      // from the far end of the palette, away from the first classes
      const colour = colours[colours.length - 1 - (i % colours.length)];
      const c = this.context;
      c.beginPath();
      this.path(points, kind === "zone");
      if (kind === "zone") {
        c.globalAlpha = ZONE_OPACITY;
        c.fillStyle = colour;
        c.fill();
        c.globalAlpha = 1;
      }
      this.stroke(colour);
      if (kind === "line") this.paintDirection(points, colour);
      const [x1, y1] = [...points].sort((a, b) => a[1] - b[1])[0].map((value) => value * this.scale);
      // a small card has no room for counts next to the names of objects
      const long = text && this.bounds.width > LEAST_FOR_COUNTS_PX ? [`${name}  ${text}`] : [];
      const sizes = [...long, name].map((one) => this.label([{ text: one, fill: colour }]));
      return { box: { x1, y1, x2: x1, y2: y1 }, sizes };
    });
    return placed(names, this.bounds, taken).map((at, i) => ({ at, label: at && names[i].sizes[at.size] })).filter(({ at }) => at);
  }

  /** Dots at the ends of a line, and an arrow to its right-hand side: the way that counts as in. */
  paintDirection(points, colour) {
    const c = this.context;
    const ends = [points[0], points.at(-1)].map(([x, y]) => [x * this.scale, y * this.scale]);
    const [[x1, y1], [x2, y2]] = ends;
    for (const [x, y] of ends) {
      c.beginPath();
      c.arc(x, y, this.line * 2, 0, 2 * Math.PI);
      c.fillStyle = colour;
      c.fill();
    }
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (length < 1) return;
    const [nx, ny] = [-(y2 - y1) / length, (x2 - x1) / length];
    const size = 11 * this.line;
    const [mx, my] = [(x1 + x2) / 2, (y1 + y2) / 2];
    const [tx, ty] = [mx + nx * size, my + ny * size];
    c.beginPath();
    c.moveTo(mx, my);
    c.lineTo(tx, ty);
    for (const side of [1, -1]) {
      c.moveTo(tx - (nx + side * ny) * size * 0.4, ty - (ny - side * nx) * size * 0.4);
      c.lineTo(tx, ty);
    }
    this.stroke(colour);
  }

  /** The likeliest classes, or what covers most of the picture, in its upper left corner. */
  paintRows({ classes, shares }) {
    const rows = [...(classes || []).map(({ class: name, score }) => [name, score]), ...Object.entries(shares || {})];
    let y = this.text / 2;
    return rows.slice(0, MAX_ROWS).map(([name, share]) => {
      const label = this.label([{ text: name, fill: this.stream.colourOf(name) }, { text: `${Math.round(share * 100)} %`, fill: PANEL }]);
      const at = { x: this.text / 2, y, width: label.width, height: label.height };
      this.paintLabel(at, label.parts);
      y += label.height + 3;
      return at;
    });
  }

  close() {
    this.observer.disconnect();
  }
}
