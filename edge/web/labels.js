// Where labels go: each next to its own box, none over another, and not at another place in every frame.

/** The places of a label of this size at a box, the best first: above, inside, below, beside. */
function candidates({ x1, y1, x2, y2 }, { width, height }) {
  return [
    [x1, y1 - height], [x2 - width, y1 - height], [x1, y1], [x1, y2], [x2 - width, y2 - height], [x2, y1], [x1 - width, y1],
  ];
}

function overlaps(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

/**
 * Places for the labels of boxes.
 *
 * things: {box: {x1, y1, x2, y2}, sizes: [{width, height}, …], last}, the most important one first; the sizes are those of
 *   its label, the longest first; last is what was answered for it before, if anything.
 * bounds: {width, height} that no label leaves. taken: rectangles where none may lie.
 * Answers per thing {x, y, width, height, size, place}, size and place being indices; null where there is no room.
 */
export function placed(things, bounds, taken = []) {
  const full = [...taken];
  return things.map(({ box, sizes, last }) => {
    const order = sizes.flatMap((_, size) => candidates(box, sizes[size]).map((_, place) => [size, place]));
    if (last && last.size < sizes.length) order.unshift([last.size, last.place]);
    for (const [size, place] of order) {
      const { width, height } = sizes[size];
      if (width > bounds.width || height > bounds.height) continue;
      const [x, y] = candidates(box, sizes[size])[place];
      const at = { x: Math.min(Math.max(x, 0), bounds.width - width), y: Math.min(Math.max(y, 0), bounds.height - height), width, height };
      if (full.some((other) => overlaps(at, other))) continue;
      full.push(at);
      return { ...at, size, place };
    }
    return null;
  });
}
