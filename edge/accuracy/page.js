// One card at a time, by keys: which boxes are right, how many are missing; how many crossed the line.
"use strict";

const COLOURS = { right: "#22c55e", wrong: "#ef4444", missing: "#f59e0b", nothing: "#94a3b8" };
const one = (id) => document.getElementById(id);
let cards = [];
let at = 0;

async function begin() {
  const round = await (await fetch("cards.json")).json();
  cards = round.cards;
  one("title").textContent = round.stream;
  one("done").max = cards.length;
  const first = cards.findIndex((card) => !card.answered);
  at = first < 0 ? cards.length : first;
  show();
}

function show() {
  one("done").value = cards.filter((card) => card.answered).length;
  const card = cards[at];
  if (!card) {
    one("place").textContent = "";
    one("boxes").replaceChildren();
    one("question").textContent = "All confirmed. The result stands in the terminal; this page can be closed.";
    return;
  }
  one("place").textContent = `${at + 1} of ${cards.length}`;
  const image = new Image();
  image.onload = () => {
    if (cards[at] === card) draw(card, image);
  };
  image.src = `${String(card.number).padStart(3, "0")}.jpg`;
  card.image = image;
  tell(card);
}

function tell(card) {
  one("question").textContent = card.line
    ? `How many crossed the line “${card.line}”? ${card.answer.crossed} (${card.counted} were counted)`
    : `Missing in the picture, without a box: ${card.answer.missed}`;
  const rows = card.boxes.map((box, number) => {
    const row = document.createElement("li");
    const wrong = card.answer.wrong.includes(number);
    row.textContent = `${box.name} ${Math.round(100 * box.score)} %${box.seen ? "" : wrong ? " (not there)" : " (was missed)"}`;
    row.className = wrong ? "wrong" : "";
    row.onclick = () => toggle(number);
    return row;
  });
  one("boxes").replaceChildren(...rows);
}

function draw(card, image) {
  const canvas = one("picture");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const size = Math.max(12, canvas.width / 55);
  pen.font = `${size}px sans-serif`;
  pen.lineWidth = Math.max(2, canvas.width / 400);
  card.boxes.forEach((box, number) => {
    const wrong = card.answer.wrong.includes(number);
    const [left, top, right, bottom] = box.xyxy;
    pen.strokeStyle = pen.fillStyle = box.seen
      ? wrong ? COLOURS.wrong : COLOURS.right
      : wrong ? COLOURS.nothing : COLOURS.missing;
    pen.setLineDash(box.seen ? [] : [6, 6]);
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.fillText(`${number + 1} ${box.name}`, left + 2, Math.max(size, top - 4));
  });
}

function toggle(number) {
  const card = cards[at];
  if (!card || number >= card.boxes.length) return;
  const wrong = new Set(card.answer.wrong);
  wrong.has(number) ? wrong.delete(number) : wrong.add(number);
  card.answer.wrong = [...wrong];
  tell(card);
  draw(card, card.image);
}

function more(step) {
  const card = cards[at];
  if (!card) return;
  const key = card.line ? "crossed" : "missed";
  card.answer[key] = Math.min(99, Math.max(0, card.answer[key] + step));
  tell(card);
}

async function next() {
  const card = cards[at];
  if (!card) return;
  const kept = await fetch("answer", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ number: card.number, ...card.answer }),
  });
  if (!kept.ok) {
    one("question").textContent = "The answer was not kept; is the command still running?";
    return;
  }
  card.answered = true;
  at += 1;
  show();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const act = {
    ArrowUp: () => more(1),
    "+": () => more(1),
    ArrowDown: () => more(-1),
    "-": () => more(-1),
    Enter: next,
    ArrowRight: next,
    ArrowLeft: () => { at = Math.max(0, at - 1); show(); },
  }[event.key] || (event.key >= "1" && event.key <= "9" ? () => toggle(Number(event.key) - 1) : null);
  if (!act) return;
  event.preventDefault();
  act();
});

one("picture").addEventListener("click", (event) => {
  const card = cards[at];
  if (!card) return;
  const canvas = one("picture");
  const scale = canvas.width / canvas.clientWidth;
  const [x, y] = [event.offsetX * scale, event.offsetY * scale];
  const inside = card.boxes
    .map((box, number) => ({ number, area: (box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1]), box: box.xyxy }))
    .filter(({ box }) => box[0] <= x && x < box[2] && box[1] <= y && y < box[3])
    .sort((a, b) => a.area - b.area);
  if (inside.length) toggle(inside[0].number);
});

begin();
