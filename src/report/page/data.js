"use strict";
// The data that the program wrote into the page, and the arithmetic of curves. The definitions are those of
// report/curves.h, which draws the same curves as SVG.

const data = JSON.parse(document.getElementById("data").textContent);
function decodeFloats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// {"f32": base64}, or {"knots": [index, value, ...]} with straight lines between.
function decodeColumn(column) {
  if (column.f32 !== undefined) return decodeFloats(column.f32);
  const knots = column.knots;
  const values = new Float64Array(knots.length ? knots[knots.length - 2] + 1 : 0);
  if (knots.length) values[0] = knots[1];
  for (let k = 2; k < knots.length; k += 2) {
    const from = knots[k - 2], rows = knots[k] - from, rise = knots[k + 1] - knots[k - 1];
    for (let i = 1; i <= rows; i++) values[from + i] = knots[k - 1] + rise * (i / rows);
  }
  return values;
}

// Every member that is a column becomes an array of numbers.
function decodeRows(rows) {
  const decoded = { ...rows };
  for (const [name, value] of Object.entries(rows)) {
    if (value && (value.f32 !== undefined || value.knots !== undefined)) decoded[name] = decodeColumn(value);
  }
  return decoded;
}

const runs = data.runs.map((run, index) => ({
  ...data.comparison.runs[index],  // name, steps, marks, ...
  ...run,
  index,
  train: decodeRows(run.train),
  validation: decodeRows(run.validation),
  attention: run.attention && { ...decodeRows(run.attention), layers: run.attention.layers.map(decodeRows) },
}));
const baseline = runs[data.baseline];
// Runs that differ in their seeds alone.
const groups = data.columns.filter((column) => column.members.length > 1)
  .map((column) => ({ name: column.label, members: column.members.map((index) => runs[index]) }));

// What curves are drawn over, as a run's own count: of rows that have step, tokens and seconds.
const measures = {
  steps: { label: "steps", own: (run, rows) => rows.step },
  tokens: { label: "tokens", own: (run, rows) => rows.tokens },
  seconds: { label: "training time", own: (run, rows) => rows.seconds },
  flops: {
    label: "training FLOPs",
    own: (run, rows) => Float64Array.from(rows.tokens, (tokens) => tokens * run.flops_per_token),
  },
};

function isKnown(run, measure) {
  return measure !== "flops" || run.flops_per_token !== null;
}

// What is added to a run's own count: what its ancestors had done or, with all forks moved to zero, less what a
// fork has only taken over.
function offsetOf(run, measure, aligned) {
  return aligned ? -run.start[measure] : run.origin[measure];
}

// The x of rows (a run's `train` or `validation`); empty where the measure is not known for the run.
function abscissae(run, rows, measure, aligned) {
  if (!isKnown(run, measure) || rows.rows === 0) return new Float64Array(0);
  const kept = `${measure} ${aligned}`;
  rows.x ??= new Map();
  if (!rows.x.has(kept)) {
    const offset = offsetOf(run, measure, aligned);
    rows.x.set(kept, Float64Array.from(measures[measure].own(run, rows), (own) => own + offset));
  }
  return rows.x.get(kept);
}

// The x at the end of a step, by straight lines from the run's beginning through the rows that it has.
function xOfStep(run, step, measure, aligned) {
  const rows = run.train.rows ? run.train : run.validation;
  const x = abscissae(run, rows, measure, aligned);
  if (x.length === 0) return NaN;
  const first = rows.step[0];
  if (step >= first) return valueAt(rows.step, x, Math.min(step, rows.step[rows.rows - 1]));
  const start = offsetOf(run, measure, aligned) + run.start[measure];
  const share = (step - run.start.steps) / Math.max(first - run.start.steps, 1e-9);
  return start + Math.max(0, share) * (x[0] - start);
}

// The first index whose value is not below `at`.
function lowerBound(values, at) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

// y at x, between two points by a straight line; NaN outside the curve and beside a gap.
function valueAt(x, y, at) {
  const after = lowerBound(x, at);
  if (after === x.length) return NaN;
  if (x[after] === at) return y[after];
  if (after === 0) return NaN;
  return y[after - 1] + (at - x[after - 1]) / (x[after] - x[after - 1]) * (y[after] - y[after - 1]);
}

// sum_j w_j y_j / sum_j w_j over the finite y_j with j <= i, where w_j = exp(-(x_i - x_j) / scale); on a logarithmic
// axis ln x stands in the place of x.
function smoothed(x, y, scale, log) {
  if (!(scale > 0)) return y;
  const smooth = new Float64Array(y.length);
  let sum = 0, weight = 0, last = 0;
  for (let i = 0; i < y.length; i++) {
    const at = log ? Math.log(x[i]) : x[i];
    if (!Number.isFinite(y[i]) || !Number.isFinite(at)) {
      smooth[i] = NaN;
      continue;
    }
    const decay = weight > 0 ? Math.exp((last - at) / scale) : 0;
    sum = decay * sum + y[i];
    weight = decay * weight + 1;
    last = at;
    smooth[i] = sum / weight;
  }
  return smooth;
}

// y - baseline at the x of y; NaN where the baseline has no value.
function differences(x, y, baseX, baseY) {
  return y.map((value, i) => value - valueAt(baseX, baseY, x[i]));
}

function quantile(sorted, share) {
  const at = share * (sorted.length - 1), below = Math.floor(at);
  return sorted[below] + (at - below) * (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
}

// The range of y that is worth its ink. With q the distance between the 10 % and the 90 % quantile, it ends q / 4 above
// the latter (a loss: its first steps, its spikes) or, with `bothSides`, q outside of either (what varies around a
// level). Null when no value is finite.
function robustRange(values, bothSides) {
  const sorted = Float64Array.from(values.filter(Number.isFinite)).sort();
  if (sorted.length === 0) return null;
  const q10 = quantile(sorted, 0.1), q90 = quantile(sorted, 0.9), q = q90 - q10;
  const lowest = sorted[0], highest = sorted[sorted.length - 1];
  if (bothSides) return [Math.max(lowest, q10 - q), Math.min(highest, q90 + q)];
  return [lowest, Math.min(highest, q90 + q / 4)];
}

// The mean of curves {x, y} at the x of the first one where all have a value, and one sample standard deviation
// below and above it.
function meanOf(curves) {
  const x = [], y = [], low = [], high = [];
  for (const at of curves[0].x) {
    const values = curves.map((curve) => valueAt(curve.x, curve.y, at));
    if (!values.every(Number.isFinite)) continue;
    const mean = values.reduce((sum, value) => sum + value) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const deviation = Math.sqrt(squares / (values.length - 1));
    x.push(at);
    y.push(mean);
    low.push(mean - deviation);
    high.push(mean + deviation);
  }
  return { x, y, low, high };
}
