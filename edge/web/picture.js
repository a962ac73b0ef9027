// The live picture of one stream: a canvas that shows the newest JPEG, and what was found in that picture over it.

import { el } from "./dom.js";
import { MarksLayer } from "./marks.js";
import { t } from "./words.js";

const RETRY_MS = 1500;
const TIMEOUT_MS = 6000;

export class Picture {
  /**
   * isFallback: instead of waiting for pictures to show, ask for one after the other; each answer is the next new one.
   * An <img> with MJPEG would not do: browsers do not say when its connection has ended.
   */
  constructor(stream, isFallback = false, pauseMs = 0) {
    this.stream = stream;
    this.numShown = 0;
    this.pending = null;
    this.isBusy = false;
    this.isClosed = false;
    const label = t("picture.of", { name: stream.name });
    this.node = el("canvas", { class: "picture", role: "img", "aria-label": label, "data-stream": stream.name });
    this.context = this.node.getContext("bitmaprenderer");
    this.marks = new MarksLayer(stream);
    if (isFallback) this.poll(pauseMs);
  }

  /** Show a JPEG and draw its result; while one is being decoded only the newest waits. */
  async show(jpeg, result = null) {
    this.pending = { jpeg, result };
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      while (this.pending) {
        const next = this.pending;
        this.pending = null;
        const bitmap = await createImageBitmap(new Blob([next.jpeg], { type: "image/jpeg" }));
        if (this.node.width !== bitmap.width || this.node.height !== bitmap.height) {
          this.node.width = bitmap.width;
          this.node.height = bitmap.height;
        }
        this.context.transferFromImageBitmap(bitmap);
        // in the same step, so that both are on screen together
        this.marks.show(next.result);
        this.numShown += 1;
        this.node.dataset.shown = this.numShown;
      }
    } catch {
      // a picture that cannot be decoded is skipped; the next one replaces it
    } finally {
      this.isBusy = false;
    }
  }

  async poll(pauseMs) {
    const url = `snapshot/${encodeURIComponent(this.stream.name)}.jpg`;
    while (!this.isClosed) {
      let wait = pauseMs;
      try {
        if (document.hidden) throw new Error("nobody looks");
        const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
        if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
        await this.show(await answer.arrayBuffer());
        if (answer.headers.get("x-is-new") === "1") this.stream.lastFrameMs = performance.now();
        else wait = RETRY_MS;
      } catch {
        wait = RETRY_MS;
      }
      await new Promise((resolve) => { setTimeout(resolve, wait); });
    }
  }

  close() {
    this.isClosed = true;
    this.marks.close();
  }
}
