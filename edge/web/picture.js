// The live picture of one stream: a canvas that shows the newest JPEG, or an <img> with MJPEG as the fallback.

import { el } from "./dom.js";

const SNAPSHOT_MS = 1000;
const RETRY_MS = 1500;

export class Picture {
  /** mode: "feed" (pictures are given to show), "mjpeg" or "snapshots" (it fetches them itself). */
  constructor(stream, mode = "feed") {
    this.stream = stream;
    this.numShown = 0;
    this.pending = null;
    this.isBusy = false;
    const label = `Live picture of ${stream.name}`;
    if (mode === "feed") {
      this.node = el("canvas", { class: "picture", role: "img", "aria-label": label, "data-stream": stream.name });
      this.context = this.node.getContext("bitmaprenderer");
    } else {
      this.node = el("img", { class: "picture", alt: label, "data-stream": stream.name });
      this.node.addEventListener("error", () => this.later(RETRY_MS));
      this.node.addEventListener("load", () => this.loaded(mode));
      this.mode = mode;
      this.load();
    }
  }

  /** Show a JPEG; while one is being decoded only the newest waits. */
  async show(jpeg) {
    this.pending = jpeg;
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      while (this.pending) {
        const data = this.pending;
        this.pending = null;
        const bitmap = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
        if (this.node.width !== bitmap.width || this.node.height !== bitmap.height) {
          this.node.width = bitmap.width;
          this.node.height = bitmap.height;
        }
        this.context.transferFromImageBitmap(bitmap);
        this.shown();
      }
    } catch {
      // a picture that cannot be decoded is skipped; the next one replaces it
    } finally {
      this.isBusy = false;
    }
  }

  shown() {
    this.numShown += 1;
    this.node.dataset.shown = this.numShown;
    this.node.classList.add("has-picture");
  }

  load() {
    const name = encodeURIComponent(this.stream.name);
    const fresh = Date.now();
    this.node.src = this.mode === "mjpeg" ? `stream/${name}.mjpeg?t=${fresh}` : `snapshot/${name}.jpg?t=${fresh}`;
  }

  loaded(mode) {
    this.shown();
    this.stream.lastFrameMs = performance.now();
    if (mode === "snapshots") this.later(SNAPSHOT_MS);
  }

  later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), ms);
  }

  /** Begin a broken MJPEG picture anew; the browser does not say when one stands still. */
  reload() {
    if (this.mode === "mjpeg") this.load();
  }

  close() {
    clearTimeout(this.timer);
    if (this.mode) this.node.removeAttribute("src");
  }
}
