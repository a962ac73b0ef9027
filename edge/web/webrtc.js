// The live picture of one stream over WebRTC (WHEP): a video that stands in the canvas' place while its pictures come.

import { el } from "./dom.js";
import { t } from "./words.js";

const GATHER_MS = 5000;
const ANSWER_MS = 8000;
const FIRST_PICTURE_MS = 5000;
const SILENCE_MS = 3000;
const CHECK_MS = 250;
const FIRST_RETRY_MS = 2000;
const LAST_RETRY_MS = 30000;
// the server has no WebRTC, or cannot serve this browser: asking again changes nothing
const NEVER = new Set([400, 403, 404, 405, 415, 501]);

export function canVideo() {
  return "RTCPeerConnection" in window && "requestVideoFrameCallback" in HTMLVideoElement.prototype;
}

function later(ms) {
  return new Promise((resolve) => { setTimeout(resolve, ms); });
}

/** All candidates in one offer: the server is reached directly, so there is nothing to wait for that comes later. */
async function offerOf(connection) {
  await connection.setLocalDescription();
  if (connection.iceGatheringState !== "complete") {
    await Promise.race([later(GATHER_MS), new Promise((resolve) => {
      connection.addEventListener("icegatheringstatechange", () => {
        if (connection.iceGatheringState === "complete") resolve();
      });
    })]);
  }
  const { sdp } = connection.localDescription;
  // on a busy machine the one for TCP may be found first, and the server takes none of those
  if (!/^a=candidate:\S+ 1 udp /im.test(sdp)) throw new Error("this browser found no address of its own yet");
  return sdp;
}

export class Video extends EventTarget {
  /**
   * Fires "playing" when pictures come, "picture" with the time on the wire of each that is shown, and "lost" when they do
   * not come any more; tries again until it is closed.
   */
  constructor(stream) {
    super();
    this.stream = stream;
    // of its place, in pixels of the screen; 1 while that is not known
    this.width = this.asked = 1;
    this.numShown = 0;
    this.isPlaying = false;
    this.isClosed = false;
    this.retryMs = FIRST_RETRY_MS;
    this.node = el("video", {
      class: "picture is-waiting", playsinline: true, autoplay: true, disablepictureinpicture: true,
      "aria-label": t("picture.of", { name: stream.name }), "data-stream": stream.name,
    });
    // browsers start a video by themselves only without sound
    this.node.muted = true;
    this.onVisibility = () => { if (document.hidden) this.hangUp(); else this.wake?.(); };
    this.onLeave = () => this.hangUp();
    document.addEventListener("visibilitychange", this.onVisibility);
    window.addEventListener("pagehide", this.onLeave);
    this.run();
  }

  async run() {
    while (!this.isClosed) {
      // nobody looks, so nothing is encoded on the device
      if (document.hidden) await new Promise((resolve) => { this.wake = resolve; });
      if (this.isClosed) return;
      try {
        await this.call();
        await this.watch();
      } catch (error) {
        if (!(error instanceof TypeError)) console.info(`webrtc: ${error.message}`);
        if (error.isFinal) this.isClosed = true;
      }
      this.hangUp();
      if (this.isClosed) return;
      const wait = later(this.retryMs * (0.75 + Math.random() / 2));
      this.retryMs = Math.min(this.retryMs * 2, LAST_RETRY_MS);
      await wait;
    }
  }

  async call() {
    const connection = this.connection = new RTCPeerConnection();
    const { receiver } = connection.addTransceiver("video", { direction: "recvonly" });
    // live: a picture is shown when it is there, not when it would run smoothest
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    this.node.srcObject = new MediaStream([receiver.track]);
    const url = `stream/${encodeURIComponent(this.stream.name)}/whep`;
    // plain: what was found is drawn here
    const body = await offerOf(connection);
    if (this.connection !== connection) throw new Error("hung up before the call");
    const answer = await fetch(`${url}?plain=${this.asked = this.width}`, {
      method: "POST", headers: { "content-type": "application/sdp" }, body,
      cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (!answer.ok) {
      const error = new Error(`the server answered ${answer.status}`);
      error.isFinal = NEVER.has(answer.status);
      throw error;
    }
    this.place = `${url}/${answer.headers.get("location").split("/").at(-1)}`;
    await connection.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  }

  /** Until pictures do not come any more although the stream has results. */
  async watch() {
    const { connection } = this;
    let seenMs = performance.now();
    const onFrame = (now, { rtpTimestamp }) => {
      if (this.connection !== connection) return;
      seenMs = performance.now();
      this.numShown += 1;
      this.node.dataset.shown = this.numShown;
      this.setPlaying(true);
      this.dispatchEvent(new CustomEvent("picture", { detail: rtpTimestamp }));
      this.node.requestVideoFrameCallback(onFrame);
    };
    this.node.requestVideoFrameCallback(onFrame);
    while (this.connection === connection) {
      const limit = this.isPlaying ? SILENCE_MS : FIRST_PICTURE_MS;
      if (["failed", "closed"].includes(connection.connectionState)) return;
      if (this.width > this.asked && this.asked > 1) {
        // its place has grown: larger pictures are asked for
        this.retryMs = CHECK_MS;
        return;
      }
      if (performance.now() - seenMs > limit && (!this.isPlaying || this.stream.lastFrameMs - seenMs > limit / 2)) return;
      await later(CHECK_MS);
    }
  }

  setPlaying(isPlaying) {
    if (isPlaying === this.isPlaying) return;
    this.isPlaying = isPlaying;
    if (isPlaying) this.retryMs = FIRST_RETRY_MS;
    this.dispatchEvent(new Event(isPlaying ? "playing" : "lost"));
  }

  hangUp() {
    const { connection, place } = this;
    this.connection = this.place = null;
    connection?.close();
    this.node.srcObject = null;
    // the server would notice by itself, but only after a while
    if (place) fetch(place, { method: "DELETE", keepalive: true }).catch(() => {});
    this.setPlaying(false);
  }

  close() {
    this.isClosed = true;
    document.removeEventListener("visibilitychange", this.onVisibility);
    window.removeEventListener("pagehide", this.onLeave);
    this.wake?.();
    this.hangUp();
  }
}
