// Messages to this phone: switching them on and off, and which cameras leave somebody alone for now.

import { el, say, words } from "./dom.js";
import { t } from "./words.js";

const ADDRESS = "api/push";
const AGAIN_MS = 10_000;

/** Why this browser can take no messages; empty where it can. */
function whyNot() {
  if (!window.isSecureContext) return t("push.insecure");
  return "serviceWorker" in navigator && "PushManager" in window && "Notification" in window ? "" : t("push.unable");
}

async function ask(address, method = "GET", body = undefined) {
  const answer = await fetch(address, { method, cache: "no-store", headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

function bytes(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
}

function isFor(subscription, key) {
  const known = new Uint8Array(subscription.options.applicationServerKey || []);
  return known.length === key.length && known.every((byte, at) => byte === key[at]);
}

/** This browser's subscription for the device's key, or null; one for another key, which the device has lost, is ended. */
async function subscription(key) {
  const registration = await navigator.serviceWorker.getRegistration();
  const found = await registration?.pushManager.getSubscription();
  if (!found || isFor(found, key)) return found || null;
  await found.unsubscribe();
  return null;
}

async function subscribe(key) {
  const said = new URLSearchParams({ quiet: t("push.quiet"), failed: t("push.quiet.failed") });
  await navigator.serviceWorker.register(`sw.js?${said}`);
  const registration = await navigator.serviceWorker.ready;
  const made = await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  await tell(made);
}

/** Give the device what it needs to send messages here; once more changes nothing. */
function tell(made) {
  const name = navigator.userAgentData?.platform || navigator.platform || "";
  return ask(ADDRESS, "POST", { ...made.toJSON(), name });
}

export class MessagesView {
  constructor(store, source) {
    store.watch([]);
    // statistics go on; no picture is asked for
    source.watch([...store.streams.keys()].slice(0, 1), 1, false);
    this.switch = el("button", { class: "button", type: "button", role: "switch", "aria-checked": "false", disabled: true, text: t("push.switch"), onclick: () => this.toggle() });
    this.words = el("p", { class: "muted", role: "status" });
    this.list = el("ul", { class: "version-list", "aria-label": t("push.silences") });
    this.none = el("p", { class: "muted", text: t("push.silences.none") });
    this.phones = el("ul", { class: "phone-list", "aria-label": t("push.phones") });
    this.noPhones = el("p", { class: "muted", text: t("push.phones.none") });
    this.node = el("section", { class: "add", "aria-label": t("page.messages") }, el("h1", { text: t("page.messages") }),
      el("fieldset", {}, el("legend", { text: t("push.title") }), this.switch, this.words),
      el("fieldset", {}, el("legend", { text: t("push.silences") }), this.list, this.none),
      el("fieldset", {}, el("legend", { text: t("push.phones") }), this.phones, this.noPhones));
    this.look();
    this.lists();
    this.timer = setInterval(() => this.lists(), AGAIN_MS);
  }

  get isOn() { return this.switch.getAttribute("aria-checked") === "true"; }

  set isOn(is) { this.switch.setAttribute("aria-checked", String(is)); }

  /** What holds now: whether the device sends messages, and this browser takes them. */
  async look() {
    say(this.words, whyNot());
    if (whyNot()) return;
    try {
      const { key } = await ask(ADDRESS);
      if (key === null) {
        say(this.words, t("push.off"));
        return;
      }
      this.key = bytes(key);
      const known = await subscription(this.key);
      // the device may have forgotten it
      if (known) await tell(known);
      this.isOn = Boolean(known);
      this.lists();
      this.switch.disabled = false;
      say(this.words, Notification.permission === "denied" ? t("push.denied") : known ? t("push.on") : "");
    } catch (error) {
      say(this.words, error.message);
    }
  }

  async toggle() {
    this.switch.disabled = true;
    try {
      await (this.isOn ? this.end() : this.begin());
    } catch (error) {
      say(this.words, t("push.failed", { reason: error.message }));
    }
    this.switch.disabled = false;
    this.lists();
  }

  async begin() {
    if (await Notification.requestPermission() !== "granted") {
      say(this.words, t("push.denied"));
      return;
    }
    await subscribe(this.key);
    this.isOn = true;
    say(this.words, t("push.on"));
  }

  async end() {
    const known = await subscription(this.key);
    if (known) {
      await ask(ADDRESS, "DELETE", { endpoint: known.endpoint });
      await known.unsubscribe();
    }
    this.isOn = false;
    say(this.words, "");
  }

  /** Whose phones take messages, and which cameras leave somebody alone. */
  async lists() {
    let phones, found;
    try {
      [{ phones }, { snoozes: found }] = await Promise.all([ask(`${ADDRESS}/phones`), ask("api/snoozes")]);
    } catch {
      // the next time
      return;
    }
    const shown = JSON.stringify([phones, found]);
    if (shown === this.shown) return;
    this.shown = shown;
    this.noPhones.hidden = phones.length > 0;
    this.phones.replaceChildren(...phones.map((one) => {
      const facts = { name: one.name || one.id, service: one.service, user: one.user && t("push.phone.user", one) };
      return el("li", {}, el("span", { text: t("push.phone", facts) }),
        el("button", { class: "button", type: "button", text: t("push.phone.end"), "aria-label": t("push.phone.end.what", facts), onclick: () => this.endOne(`${ADDRESS}/phones/${one.id}`) }));
    }));
    this.none.hidden = found.length > 0;
    this.list.replaceChildren(...found.map((one) => {
      const facts = { camera: one.stream, kind: one.kind ? words(one.kind) : t("push.any"), who: one.target, time: new Date(one.until_s * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) };
      return el("li", {}, el("span", { text: t("push.silence", facts) }),
        el("button", { class: "button", type: "button", text: t("push.silence.end"), "aria-label": t("push.silence.end.what", facts), onclick: () => this.endOne(`api/snoozes/${encodeURIComponent(one.id)}`) }));
    }));
  }

  async endOne(address) {
    try {
      await ask(address, "DELETE");
    } catch (error) {
      say(this.words, error.message);
    }
    await this.lists();
  }

  // what the frame of the page asks of every view
  message() {}

  events() {}

  tick() {}

  close() {
    clearInterval(this.timer);
  }
}
