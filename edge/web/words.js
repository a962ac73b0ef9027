// All words of the page. Another language is another table with the same keys; what stands in braces is filled in.
// The language is the browser's first that is there, or the one in the address: ?lang=en.

const en = {
  "page.skip": "Skip to the pictures",
  "page.home": "Edgeloop, all cameras",
  "page.where": "Where you are",
  "page.add": "Add a camera",
  "page.recordings": "Recordings",
  "page.theme": "Switch between light and dark",
  "page.all": "All cameras",
  "page.silent": "The device does not answer. Trying again…",

  "connection.lost": "Reconnecting",
  "connection.connecting": "Connecting",
  "connection.paused": "Paused",
  "connection.again": "Connection lost, trying again",
  "summary.live": "{count} of {all} live",
  "summary.playing": "{count} of {all} playing",

  "state.live": "Live",
  "state.file": "File",
  "state.stale": "No picture for {seconds} s",
  "state.nothing": "No picture yet",
  "state.connecting": "Connecting",
  "state.frozen": "Frozen",
  "state.ended": "Ended",
  "state.offline": "Offline",
  "state.offline.why": "Offline: {reason}",

  "picture.of": "Live picture of {name}",
  "picture.rate": "{fps} fps",
  "picture.age": "{ms} ms",
  "grid.none": "No camera is configured yet.",
  "grid.empty": "nothing in view",
  "grid.card": "{name}: {state}. {seen}. Open",

  "camera.size": "{width} × {height}",
  "camera.facts": "{width} × {height} · {fps} fps",
  "camera.facts.age": "{width} × {height} · {fps} fps · {ms} ms old",
  "camera.snapshot": "Snapshot",
  "camera.full": "Full screen",
  "camera.heat": "Heat map",
  "camera.heat.alt": "Where objects spent their time",
  "camera.health": "Health",
  "camera.rate": "Frame rate",
  "camera.age": "Picture age",
  "unit.fps": "fps",
  "unit.ms": "ms",
  "camera.objects": "Objects",
  "camera.view": "In view",
  "camera.view.none": "Nothing in view.",
  "camera.tracks": "Tracks",
  "camera.tracks.none": "No object in view.",
  "camera.track.id": "Id",
  "camera.track.class": "Class",
  "camera.track.score": "Score",
  "camera.track.centre": "Centre",
  "camera.track.size": "Size",
  "camera.track.seen": "Seen",
  "camera.events": "Events",
  "camera.events.order": "Events, newest first",
  "camera.events.none": "Nothing has happened yet. Lines and zones raise events.",
  "camera.why": "why",
  "camera.recording": "recording",
  "camera.model": "Model and source",
  "camera.late": "age p99",
  "camera.fps_in": "fps in",
  "camera.viewers": "viewers",
  "camera.line": "in {in} · out {out}",
  "camera.zone": "{count} inside",

  "plot.now": "{label}: now {value}, {range}",
  "plot.range": "min {least} · max {most}",
  "stages.title": "Stage times",
  "stages.stage": "Stage",
  "stages.part": "{name} {ms} ms",
  "stages.median": "median ms",
  "stages.p99": "p99 ms",

  "draw.title": "Draw",
  "draw.tools": "Draw lines and zones",
  "draw.zone": "Zone",
  "draw.line": "Line",
  "draw.mask": "Privacy mask",
  "draw.corners": "Corners of lines, zones and masks",
  "draw.corner": "Corner {number} of {name}; the arrow keys move it",
  "draw.edit": "Edit what is there",
  "draw.undo": "Undo",
  "draw.save": "Save",
  "draw.discard": "Discard changes",
  "draw.text": "Text for the configuration file",
  "draw.copy": "Copy",
  "draw.copied": "Copied",
  "draw.how.line": "Click where the line begins and where it ends. What crosses it from left to right, seen from the beginning, counts as in.",
  "draw.how": "Click the corners; click the first one again, double-click or press Enter to close. Escape leaves.",
  "draw.crossed": "The edges of {name} cross: move its corners, a part would stay uncovered.",
  "draw.saved": "Saved. It counts from now on.",
  "draw.unsaved": "Drawn here before, not saved yet.",
  "draw.before": "Drawn here before.",
  "draw.name.zone": "Name of zone {number}",
  "draw.name.line": "Name of line {number}",
  "draw.name.mask": "Name of privacy mask {number}",
  "draw.turn": "Turn round",
  "draw.remove": "Remove",
  "draw.classes.all": "All classes",
  "draw.times.file": "{count} times, set in the file",
  "draw.every_day": "Every day",
  "draw.always": "Always",
  "draw.from": "from",
  "draw.to": "to",
  "day.mon": "mon",
  "day.tue": "tue",
  "day.wed": "wed",
  "day.thu": "thu",
  "day.fri": "fri",
  "day.sat": "sat",
  "day.sun": "sun",

  "token.name": "Operate token",
  "token.go": "Go on",
  "token.refused": "This token may not change anything.",
  "token.silent": "The device does not answer. What was drawn is kept here; try again.",
  "versions.title": "Earlier versions of the file",
  "versions.before": "before {time}",
  "versions.restore": "Restore",
  "versions.restore.what": "Restore what was before {time}",
  "versions.none": "Nothing was changed from here yet.",
};

export const LANGUAGES = { en };
let chosen = "en";

/** Speak this language from now on, as far as it is there; what is on the page already stays as it is. */
export function use(...wanted) {
  chosen = wanted.map((one) => one.slice(0, 2).toLowerCase()).find((one) => one in LANGUAGES) || "en";
  document.documentElement.lang = chosen;
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = t(node.dataset.word);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
}

/** The words of this key, with values in place of what is in braces. */
export function t(key, values = {}) {
  const text = LANGUAGES[chosen][key] ?? en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

use(...[new URLSearchParams(location.search).get("lang"), ...navigator.languages].filter(Boolean));
