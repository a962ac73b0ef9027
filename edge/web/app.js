// The page's frame: loads the streams, keeps the connection, shows the grid or one camera, light or dark.

import { AddView } from "./add.js";
import { CameraView } from "./camera.js";
import { decoded, el, say } from "./dom.js";
import { Feed, Polling } from "./feed.js";
import { GridView } from "./grid.js";
import { MessagesView } from "./messages.js";
import { RecordingsView } from "./recordings.js";
import { AccountView } from "./account.js";
import { setMe } from "./edit.js";
import { Store } from "./store.js";
import { t } from "./words.js";

const TICK_MS = 500;
const main = document.getElementById("main");
const summary = document.querySelector(".summary");
const crumbs = document.querySelector(".crumbs");

class App {
  constructor(store, isFallback) {
    this.store = store;
    this.isFallback = isFallback;
    this.view = null;
    this.connect();
    window.addEventListener("hashchange", () => this.route());
    store.addEventListener("events", () => this.view?.events());
    store.addEventListener("streams", () => { setMe(store.me); this.route(); });
    this.route();
    setInterval(() => this.tick(), TICK_MS);
  }

  connect() {
    this.source = this.isFallback ? new Polling() : new Feed();
    document.documentElement.dataset.engine = this.isFallback ? "snapshots" : "feed";
    this.source.addEventListener("message", ({ detail }) => {
      this.store.take(detail.json);
      this.view?.message(detail);
    });
    this.source.addEventListener("state", ({ detail }) => {
      this.store.setConnection(detail);
      document.documentElement.dataset.connection = detail;
      this.tick();
    });
    this.source.addEventListener("refused", () => this.store.renew(null));
    this.source.addEventListener("hopeless", () => this.fallBack());
  }

  /** The feed never worked, for instance behind a proxy that holds answers back: ask for single pictures. */
  fallBack() {
    this.source.stop();
    this.isFallback = true;
    this.connect();
    this.route();
  }

  route() {
    const name = decoded(location.hash.match(/^#\/camera\/(.+)$/)?.[1] || "");
    const stream = this.store.streams.get(name);
    const isPast = location.hash.startsWith("#/recordings");
    const isAdding = location.hash === "#/add" && this.store.canAdd;
    const isAccount = location.hash === "#/account" && this.store.me.kind !== "anyone";
    // what is typed stays while other cameras come and go
    if (isAdding && this.view instanceof AddView) return;
    this.view?.close();
    const isTold = location.hash === "#/messages";
    this.view = isAdding ? new AddView(this.store, this.source) : isAccount ? new AccountView(this.store, this.source)
      : isTold ? new MessagesView(this.store, this.source) : isPast ? new RecordingsView(this.store, this.source, location.hash) : stream
      ? new CameraView(this.store, this.source, stream, this.isFallback)
      : new GridView(this.store, this.source, this.isFallback);
    main.replaceChildren(this.view.node);
    main.classList.toggle("is-grid", this.view instanceof GridView);
    this.view.arrange?.();
    const place = isAdding ? t("page.add") : isAccount ? t("page.account") : isTold ? t("page.messages") : isPast ? t("page.recordings") : stream ? name : "";
    crumbs.replaceChildren(...(place ? [el("a", { href: "#/", text: t("page.all") }), el("span", { text: place })] : []));
    document.title = place ? `${place} · Edgeloop` : "Edgeloop";
    window.scrollTo(0, 0);
    this.tick();
  }

  tick() {
    this.view?.tick();
    document.getElementById("to-add").hidden = !this.store.canAdd || location.hash === "#/add";
    document.getElementById("to-messages").hidden = !this.store.hasMessages || location.hash === "#/messages";
    document.getElementById("to-recordings").hidden = !this.store.hasPast || location.hash.startsWith("#/recordings");
    document.getElementById("to-night").hidden = !this.store.hasNight;
    const account = document.getElementById("to-account");
    account.hidden = this.store.me.kind === "anyone" || location.hash === "#/account";
    say(account, this.store.me.kind === "user" ? this.store.me.name : t("page.account"));
    const streams = [...this.store.streams.values()];
    const live = streams.filter((stream) => stream.isMoving).length;
    const isLive = !streams.some((stream) => stream.info.is_file);
    const state = this.store.connection === "open" ? "" : t(`connection.${this.store.connection}`);
    say(summary, state || t(isLive ? "summary.live" : "summary.playing", { count: live, all: streams.length }));
    summary.dataset.state = state ? "lost" : live === streams.length ? "live" : "some";
  }
}

function theme() {
  const root = document.documentElement;
  const stored = localStorage.getItem("theme");
  if (stored) root.dataset.theme = stored;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
}

/** Ask for the streams until the server answers. */
async function load() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 5000)) {
    try {
      const answer = await fetch("api/streams", { cache: "no-store" });
      // the device shows the page that asks for the token
      if (answer.status === 401) location.replace("/");
      if (answer.ok) return await answer.json();
    } catch (error) {
      main.replaceChildren(el("p", { class: "notice", role: "alert", text: error instanceof TypeError
        ? t("page.silent") : error.message }));
    }
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

/** The address holds the view, so the link that skips the header must not change it. */
function skipLink() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
}

theme();
skipLink();
const query = new URLSearchParams(location.search);
const isForced = query.get("engine") === "snapshots";
const store = new Store(await load());
setMe(store.me);
if (query.get("picture") === "jpeg") store.hasWebrtc = false;
const app = new App(store, isForced || !("ReadableStream" in window && "createImageBitmap" in window));
// for tests and the curious
window.edgeloop = app;
