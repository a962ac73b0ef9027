// Shows the device's messages, also while no page is open. It keeps nothing: no picture of a camera is cached.

const PICTURE_MS = 5000;
const MAX_PICTURE_BYTES = 2e6;
// the page's words come with its address, as no module is loaded here
const WORDS = new URLSearchParams(self.location.search);

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("push", (event) => event.waitUntil(tell(event.data)));
self.addEventListener("notificationclick", (event) => {
  const { open, snooze } = event.notification.data || {};
  event.notification.close();
  event.waitUntil(event.action === "snooze" ? beQuiet(snooze) : show(open));
});

async function tell(data) {
  let message = {};
  try {
    message = data.json();
  } catch {
    // browsers show something of their own where nothing is shown
  }
  const shown = {
    body: text(message.body), tag: text(message.id) || undefined, icon: "icon-192.png", timestamp: Date.parse(message.at) || Date.now(),
    data: { open: text(message.open), snooze: text(message.snooze) },
    actions: message.snooze ? [{ action: "snooze", title: WORDS.get("quiet") || "" }] : [],
  };
  const title = text(message.title) || "Edgeloop";
  await self.registration.showNotification(title, shown);
  const image = await picture(text(message.picture));
  // the same tag: it takes the place of the first
  if (image && shown.tag) await self.registration.showNotification(title, { ...shown, image, silent: true });
}

/** The event's picture as an address of its own; nothing where this browser's session does not let it have it. */
async function picture(path) {
  const address = within(path);
  if (!path || !address) return "";
  try {
    const answer = await fetch(address, { credentials: "same-origin", cache: "no-store", redirect: "error", signal: AbortSignal.timeout(PICTURE_MS) });
    if (!answer.ok || answer.headers.get("content-type") !== "image/jpeg") return "";
    const blob = await answer.blob();
    return blob.size > MAX_PICTURE_BYTES ? "" : await dataAddress(blob);
  } catch {
    return "";
  }
}

function dataAddress(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", reject);
    reader.readAsDataURL(blob);
  });
}

async function beQuiet(offer) {
  try {
    const address = `snooze?${new URLSearchParams({ k: offer, hours: 1 })}`;
    const answer = await fetch(address, { method: "POST", credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
  } catch {
    await self.registration.showNotification("Edgeloop", { body: WORDS.get("failed") || "", icon: "icon-192.png" });
  }
}

async function show(place) {
  const address = within(place) || self.registration.scope;
  const pages = await self.clients.matchAll({ type: "window" });
  for (const page of pages) {
    try {
      await page.focus();
      return await page.navigate(address);
    } catch {
      // a page that was opened before this worker is not ours to lead
    }
  }
  return self.clients.openWindow(address);
}

/** The whole address of a place of this page; empty for any other. */
function within(place) {
  try {
    const { href } = new URL(place, self.registration.scope);
    return href.startsWith(self.registration.scope) ? href : "";
  } catch {
    return "";
  }
}

function text(value) {
  return typeof value === "string" ? value : "";
}
