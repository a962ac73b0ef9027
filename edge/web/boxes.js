// What was found in a recording, drawn over its player: the notes next to a file of the camera's own packets.

import { svg } from "./dom.js";

// of the picture's height
const TEXT_SHARE = 0.028;

export class BoxLayer {
  /** Args: the player. */
  constructor(video) {
    this.video = video;
    this.node = svg("svg", { class: "box-layer", "aria-hidden": "true" });
  }

  /** Show the notes at this address over a file of that size; none without an address. */
  load(address, width, height) {
    this.track?.remove();
    this.track = null;
    this.node.replaceChildren();
    if (!address) return;
    [this.width, this.height] = [width, height];
    this.node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const track = document.createElement("track");
    Object.assign(track, { kind: "metadata", src: address, default: true });
    track.addEventListener("load", () => this.draw());
    this.video.append(track);
    track.track.mode = "hidden";
    track.track.addEventListener("cuechange", () => this.draw());
    this.track = track;
  }

  draw() {
    const cues = [...(this.track?.track.activeCues ?? [])];
    this.node.replaceChildren(...cues.flatMap((cue) => this.drawn(JSON.parse(cue.text))));
  }

  /** The boxes of one picture, which may be a smaller one of the same camera. */
  drawn({ width, height, objects = [] }) {
    const [x, y] = [this.width / width, this.height / height];
    const size = this.height * TEXT_SHARE;
    return objects.flatMap((object) => {
      const [left, top, right, bottom] = object.xyxy.map((value, i) => value * (i % 2 ? y : x));
      const text = svg("text", { x: left, y: Math.max(top - size * 0.3, size), "font-size": size });
      text.textContent = object.track_id === null ? object.class : `${object.class} ${object.track_id}`;
      return [svg("rect", { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) }), text];
    });
  }
}
