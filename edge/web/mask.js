// Privacy masks as the configuration wants them: polygons in shares of the camera's own picture.

import { t } from "./words.js";

/** Where a point of the picture on the page, [x, y] in shares, lies in the camera's own picture, before roi and rotate. */
export function inCamera([x, y], { roi, rotate }) {
  const [u, v] = { 90: [y, 1 - x], 180: [1 - x, 1 - y], 270: [1 - y, x] }[rotate] || [x, y];
  const [left, top, right, bottom] = roi || [0, 0, 1, 1];
  return [left + u * (right - left), top + v * (bottom - top)];
}

/** The way back: where a point of the camera's own picture lies on the page; outside of it where roi leaves it out. */
export function inPicture([x, y], { roi, rotate }) {
  const [left, top, right, bottom] = roi || [0, 0, 1, 1];
  const [u, v] = [(x - left) / (right - left), (y - top) / (bottom - top)];
  return { 90: [1 - v, u], 180: [1 - u, 1 - v], 270: [v, 1 - u] }[rotate] || [u, v];
}

/** Whether two edges of a polygon cross, which the configuration refuses: a part would stay uncovered. */
export function crossesItself(points) {
  const edges = points.map((point, i) => [point, points[(i + 1) % points.length]]);
  const side = ([a, b], c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
  const cross = (one, two) =>
    side(one, two[0]) * side(one, two[1]) < 0 && side(two, one[0]) * side(two, one[1]) < 0;
  return edges.some((one, i) => edges.slice(i + 1).some((two) => cross(one, two)));
}

/** The key of the stream's table. masks: {name, points: [[x, y], …] in shares of the picture}; info: the stream's facts. */
export function masksToml(streamName, masks, info) {
  const isKnown = "roi" in info && "rotate" in info;
  const lines = masks.map(({ name, points }) => {
    const title = JSON.stringify(name);
    if (crossesItself(points)) return `  # ${t("file.crossed", { name: title })}`;
    const corners = points.map((point) => `[${inCamera(point, info).map((share) => share.toFixed(4)).join(", ")}]`);
    return `  [${corners.join(", ")}],  # ${title}`;
  });
  return [
    `# ${t("file.masks", { name: streamName })}`,
    ...(isKnown ? [] : [`# ${t("file.masks.only")}`]),
    "masks = [", ...lines, "]", ""].join("\n");
}
