// What is drawn: curves, bands, and signs.

// The indices that belong to what is shown, and one more on each side.
function shownIndices(x, scale) {
  return [Math.max(0, lowerBound(x, scale.min) - 1), Math.min(x.length, lowerBound(x, scale.max) + 1)];
}

// A line through (x, low .. high). Of the points in one column of pixels only the first, lowest, highest and last
// are drawn, which looks the same and takes as long for a million steps as for a thousand.
function curvePath(x, low, high, sx, sy) {
  const path = new Path2D(), far = 1e5;
  const place = (value) => Math.min(far, Math.max(-far, sy.pixel(value)));
  const [begin, end] = shownIndices(x, sx);
  let pen = false;
  const to = (px, value) => {
    const py = place(value);
    if (pen) return path.lineTo(px, py);
    path.moveTo(px, py);
    path.lineTo(px + 0.1, py);  // a point between two gaps is seen as well
    pen = true;
  };
  for (let i = begin; i < end; i++) {
    const px = sx.pixel(x[i]);
    if (!Number.isFinite(px) || !Number.isFinite(place(low[i]))) {
      pen = false;
      continue;
    }
    const first = i, border = sx.value(Math.floor(px) + 1);
    let lowest = low[i], highest = high[i];
    while (i + 1 < end && x[i + 1] < border && Number.isFinite(low[i + 1])) {
      i++;
      if (low[i] < lowest) lowest = low[i];
      if (high[i] > highest) highest = high[i];
    }
    to(px, low[first]);
    if (highest === lowest && i === first) continue;
    to(px, lowest);
    to(px, highest);
    to(sx.pixel(x[i]), high[i]);
  }
  return path;
}

function bandPath(x, low, high, sx, sy) {
  const path = new Path2D(), [begin, end] = shownIndices(x, sx);
  for (let i = begin; i < end; i++) path.lineTo(sx.pixel(x[i]), sy.pixel(high[i]));
  for (let i = end - 1; i >= begin; i--) path.lineTo(sx.pixel(x[i]), sy.pixel(low[i]));
  path.closePath();
  return path;
}

// Signs around the origin, as in the SVG figures: markers of curves, then what happened to runs.
const signs = {
  circle: "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0Z",
  square: "M-3.2 -3.2H3.2V3.2H-3.2Z",
  triangle: "M0 -4.4L4.2 3.2H-4.2Z",
  diamond: "M0 -4.8L4.8 0L0 4.8L-4.8 0Z",
  down_triangle: "M0 4.4L4.2 -3.2H-4.2Z",
  cross: "M-3.4 -3.4L3.4 3.4M-3.4 3.4L3.4 -3.4",
  dot: "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0Z",
  fork: "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0Z",
  resume: "M0 -8V8",
  spike: "M-4.5 -4.5L4.5 4.5M-4.5 4.5L4.5 -4.5",
  non_finite: "M0 5L5 -4H-5Z",
  signal: "M-4.5 -4.5H4.5V4.5H-4.5Z",
  save_failed: "M0 -8V2M0 6V7",
};

function signPath(name, x, y) {
  const path = new Path2D();
  path.addPath(new Path2D(signs[name]), new DOMMatrix().translate(x, y));
  return path;
}

const markNames = {
  resume: "resumed", fork: "fork", spike: "spike", non_finite: "not finite", signal: "stopped by a signal",
  save_failed: "not saved",
};
