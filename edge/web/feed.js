// The one connection that carries everything: pictures, results, events and statistics of the streams on screen.
// Browsers allow six connections per server, so sixteen MJPEG pictures would block one another; one feed does not.

const SILENCE_MS = 5000;
const FIRST_RETRY_MS = 300;
const LAST_RETRY_MS = 5000;
const FAILURES_BEFORE_FALLBACK = 4;
const WIDTHS = [320, 480, 640, 960, 1280, 1920];

/**
 * How many pixels of the screen a picture in this place has, in steps: another one means another connection, and the
 * device knows a few widths only.
 */
export function screenWidth(node) {
  const pixels = node.clientWidth * (window.devicePixelRatio || 1);
  return WIDTHS.find((width) => pixels <= width) || WIDTHS.at(-1);
}

/** The messages in a byte stream: {json, jpeg}. Format: two big-endian uint32 lengths, JSON, JPEG. */
async function* messages(reader, onBytes) {
  const decoder = new TextDecoder();
  let buffer = new Uint8Array(1 << 20);
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes();
    if (size + value.length > buffer.length) {
      const larger = new Uint8Array(2 * (size + value.length));
      larger.set(buffer.subarray(0, size));
      buffer = larger;
    }
    buffer.set(value, size);
    size += value.length;
    let at = 0;
    while (size - at >= 8) {
      const head = new DataView(buffer.buffer, at, 8);
      const textEnd = at + 8 + head.getUint32(0);
      const end = textEnd + head.getUint32(4);
      if (end > size) break;
      const json = JSON.parse(decoder.decode(buffer.subarray(at + 8, textEnd)));
      yield { json, jpeg: end > textEnd ? buffer.slice(textEnd, end) : null };
      at = end;
    }
    buffer.copyWithin(0, at, size);
    size -= at;
  }
}

export class Feed extends EventTarget {
  /** Fires "message" ({json, jpeg}), "state" (connecting, open, lost, paused), "refused" and "hopeless" once it never works. */
  constructor() {
    super();
    this.streams = [];
    this.fps = 0;
    this.hasPictures = true;
    this.width = 0;
    this.retryMs = FIRST_RETRY_MS;
    this.failures = 0;
    this.wasOpen = false;
    this.isStopped = false;
    this.numEvents = {};
    document.addEventListener("visibilitychange", () => this.restart());
  }

  /**
   * Watch these streams, at most this many frames per second each (0: all), shown at this width in pixels of the screen;
   * results alone without pictures.
   */
  watch(streams, fps, hasPictures = true, width = 0) {
    const isSame = String(streams) === String(this.streams) && fps === this.fps && hasPictures === this.hasPictures && width === this.width;
    if (isSame && this.controller) return;
    this.width = width;
    this.streams = [...streams];
    this.fps = fps;
    this.hasPictures = hasPictures;
    this.restart();
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.timer);
    this.controller?.abort();
  }

  /** Begin again. A hidden page closes its connection: nobody looks, so nothing is drawn on the device. */
  restart() {
    if (this.isStopped) return;
    clearTimeout(this.timer);
    this.controller?.abort();
    this.controller = null;
    if (document.hidden) {
      this.tell("paused");
      return;
    }
    this.run(this.controller = new AbortController());
  }

  async run(controller) {
    let silence;
    const arm = () => {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(), SILENCE_MS);
    };
    if (!this.wasOpen) this.tell("connecting");
    try {
      arm();
      const seen = Object.entries(this.numEvents).map(([name, n]) => `${name}=${n}`).join(",");
      const pictures = this.hasPictures ? 1 : 0;
      const query = new URLSearchParams({ streams: this.streams.join(","), fps: this.fps, seen, pictures, plain: this.width });
      const answer = await fetch(`api/feed?${query}`, { signal: controller.signal, cache: "no-store" });
      // what may be seen has changed, or the login is over
      if (answer.status === 401 || answer.status === 404) this.dispatchEvent(new Event("refused"));
      if (!answer.ok || !answer.body) throw new Error(`the server answered ${answer.status}`);
      for await (const message of messages(answer.body.getReader(), arm)) {
        this.retryMs = FIRST_RETRY_MS;
        this.failures = 0;
        this.wasOpen = true;
        this.tell("open");
        if (!message.json.stream) for (const event of message.json.events || []) this.numEvents[event.stream] = event.number;
        this.dispatchEvent(new CustomEvent("message", { detail: message }));
      }
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof TypeError)) console.info(`feed: ${error.message}`);
    } finally {
      clearTimeout(silence);
    }
    if (this.controller === controller && !this.isStopped) this.retry();
  }

  retry() {
    this.tell("lost");
    this.failures += 1;
    if (!this.wasOpen && this.failures >= FAILURES_BEFORE_FALLBACK) {
      this.dispatchEvent(new Event("hopeless"));
    }
    this.timer = setTimeout(() => this.restart(), this.retryMs * (0.75 + Math.random() / 2));
    this.retryMs = Math.min(this.retryMs * 2, LAST_RETRY_MS);
  }

  tell(state) {
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}

/** The fallback next to pictures that are asked for one by one: statistics by asking, results and events as they come. */
export class Polling extends EventTarget {
  constructor() {
    super();
    this.streams = [];
    this.timer = setInterval(() => this.ask(), 1000);
    this.happened = new EventSource("api/events");
    this.happened.onmessage = (event) => this.deliver({ events: [JSON.parse(event.data)] });
    this.ask();
  }

  watch(streams) {
    this.streams = [...streams];
    this.results?.close();
    this.results = null;
    if (this.streams.length === 1) {
      this.results = new EventSource(`api/results/${encodeURIComponent(this.streams[0])}`);
      this.results.onmessage = (event) => this.deliver(JSON.parse(event.data));
    }
  }

  stop() {
    clearInterval(this.timer);
    this.happened.close();
    this.results?.close();
  }

  async ask() {
    if (document.hidden) return;
    try {
      const answer = await fetch("api/stats", { cache: "no-store", signal: AbortSignal.timeout(SILENCE_MS) });
      this.deliver({ stats: await answer.json() });
      this.tell("open");
    } catch {
      this.tell("lost");
    }
  }

  deliver(json) {
    this.dispatchEvent(new CustomEvent("message", { detail: { json, jpeg: null } }));
  }

  tell(state) {
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
