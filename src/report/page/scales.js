// The learned row scale c(h, n) = s_h ln n + b_h of a run: a map of layers and heads at one time, and every head over
// training.

const kHeatWidth = 340;

// The runs that have values of view.which, shown or not.
function scaledRuns() {
  return runs.filter((run) => run.attention && run.attention.layers.some((layer) => layer[view.which]));
}

function heads(run) {
  const list = [];
  for (const layer of run.attention ? run.attention.layers : []) {
    if (!layer[view.which]) continue;
    for (let head = 0; head < layer.heads; head++) list.push({ layer, head });
  }
  return list;
}

function headCurve(run, { layer, head }) {
  const { rows } = run.attention;
  const values = layer[view.which];
  return { x: run.attention.x, y: Float64Array.from({ length: rows }, (_, row) => values[row * layer.heads + head]) };
}

// The rows of s and b know their step; x follows from it. Kept until the axis changes.
function placeAttention(run) {
  run.attention.x = Float64Array.from(run.attention.step, (step) => view.xOfStep(run, step));
}

// The map's colours: at the start's median neutral, and as far to both sides as any shown run ever goes.
function scaleRange(shown) {
  const first = [];
  let low = Infinity, high = -Infinity;
  for (const run of shown) {
    for (const layer of run.attention.layers) {
      const values = layer[view.which] || [];
      first.push(...values.slice(0, layer.heads));
      const range = extremes(values);
      if (range) low = Math.min(low, range[0]), high = Math.max(high, range[1]);
    }
  }
  const start = first.filter(Number.isFinite).sort((a, b) => a - b);
  if (low > high) return { middle: 0, reach: 1 };
  const middle = start.length ? quantile(start, 0.5) : (low + high) / 2;
  return { middle, reach: Math.max(high - middle, middle - low) || Math.abs(middle) * 0.05 || 1 };
}

function mixed(from, to, share) {
  const a = from.split(" ").map(Number), b = to.split(" ").map(Number);
  return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * share)).join(" ")})`;
}

// From the first layer to the last one, dark to bright (on a dark page the brighter part of it).
const kLayerRamp = ["68 1 84", "65 68 135", "42 120 142", "34 168 132", "122 209 81", "253 231 37"];

function layerColour(index, count) {
  const share = count > 1 ? index / (count - 1) : 0;
  const at = (view.dark() ? 0.28 + 0.72 * share : 0.82 * share) * (kLayerRamp.length - 1);
  const below = Math.min(Math.floor(at), kLayerRamp.length - 2);
  return mixed(kLayerRamp[below], kLayerRamp[below + 1], at - below);
}

// Every head over training, in the colour of its layer.
function headsPanel(run) {
  const { layers } = run.attention, picked = view.head;
  const curves = heads(run).map(({ layer, head }) => {
    const isPicked = picked !== null && picked.layer === layer.layer && picked.head === head;
    return {
      name: `layer ${layer.layer}, head ${head}`, layer: layer.layer, head,
      colour: layerColour(layers.indexOf(layer), layers.length),
      width: isPicked ? 3 : 1.1, alpha: picked && !isPicked ? 0.35 : 0.9, quietDot: !isPicked,
      ...headCurve(run, { layer, head }),
    };
  }).sort((a, b) => a.width - b.width);  // the picked one on top
  return {
    curves,
    extent: farFromStart(run.attention.x),
    unit: `${view.which} over training, coloured by layer`,
    empty: "There is nothing here.",
    full: true,
    columns: ["value"],
    valueText: (value) => minus(value.toFixed(4)),
    tip: (x, y) => nearestHead(curves, x, y),
  };
}

// A short run that begins late, as forks do, has an axis of its own; others share the page's.
function farFromStart(x) {
  const low = x[0], high = x[x.length - 1];
  return low > 0.3 * high && high > low && high - low < 0.3 * (view.extent[1] - view.extent[0]) ? [low, high] : null;
}

// The head whose curve is nearest to the pointer, which is picked everywhere, and all heads' mean.
function nearestHead(curves, x, y) {
  const here = curves.map((curve) => ({ curve, value: valueAt(curve.x, curve.y, x) }))
    .filter(({ value }) => Number.isFinite(value));
  if (here.length === 0) return "";
  const distance = ({ value }) => Math.abs(value - y);
  const best = here.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  view.pickHead(best.curve);
  const values = here.map(({ value }) => value), line = (name, value, mark = "") => element(
    "tr", {}, element("th", {}, mark, name), element("td", {}, minus(value.toFixed(4))));
  return element("table", {}, line(` ${best.curve.name}`, best.value, swatch(best.curve)),
                 line("mean of all", values.reduce((sum, value) => sum + value) / values.length),
                 line("lowest", Math.min(...values)), line("highest", Math.max(...values)));
}

class HeatMap {
  constructor(parent, run) {
    this.run = run;
    this.canvas = element("canvas", { role: "img" });
    this.note = element("p", { className: "heat-note" });
    this.plot = element("div", { className: "heat" }, this.canvas, this.note);
    parent.append(this.plot);
    this.canvas.addEventListener("pointermove", (event) => this.pick(event));
    this.canvas.addEventListener("pointerdown", (event) => this.pick(event));
    this.canvas.addEventListener("pointerleave", () => view.pickHead(null));
  }

  layout(width) {
    const layers = this.run.attention.layers.filter((layer) => layer[view.which]);
    const most = Math.max(...layers.map((layer) => layer.heads));
    const left = 30, top = 20, cell = (width - left - 2) / most;
    return { layers, most, left, top, cell, high: Math.min(cell, Math.max(13, Math.min(26, 260 / layers.length))) };
  }

  // The row of the run that was the last one at x.
  rowAt(x) {
    const { attention } = this.run, after = lowerBound(attention.x, x * (1 + 1e-9));
    return Math.min(Math.max(0, attention.x[after] === x ? after : after - 1), attention.rows - 1);
  }

  draw(range, paper) {
    const width = paper ? kHeatWidth : Math.min(this.plot.clientWidth, 460);
    const ratio = paper ? paper.ratio : devicePixelRatio || 1;
    if (width === 0) return;
    const { layers, left, top, cell, high } = this.placed = this.layout(width), height = top + layers.length * high + 2;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const row = this.rowAt(view.scaleX());
    this.drawLabels(context);
    layers.forEach((layer, i) => {
      for (let head = 0; head < layer.heads; head++) {
        this.drawCell(context, layer[view.which][row * layer.heads + head], left + head * cell, top + i * high, range);
      }
    });
    const step = this.run.attention.step[row];
    const words = `${view.which} of ${this.run.name} by layer (rows) and head (columns) at step ${step}`;
    this.canvas.setAttribute("aria-label", words);
    const picked = this.pickedText(row) || "layers down, heads across";
    this.note.textContent = `${view.which} at step ${withCommas(step)}: ${picked}`;
    this.outlinePicked(context);
  }

  drawLabels(context) {
    const { layers, most, left, top, cell, high } = this.placed;
    context.textAlign = "center";
    context.fillStyle = themeColour("muted");
    const every = Math.ceil(18 / cell);
    for (let head = 0; head < most; head += every) context.fillText(head, left + (head + 0.5) * cell, top - 9);
    context.textAlign = "right";
    layers.forEach((layer, i) => {
      context.fillStyle = themeColour("muted");
      context.fillText(layer.layer, left - 10, top + (i + 0.5) * high);
      context.fillStyle = layerColour(this.run.attention.layers.indexOf(layer), this.run.attention.layers.length);
      context.fillRect(left - 6, top + i * high + 1, 4, high - 2);
    });
  }

  drawCell(context, value, x, y, { middle, reach }) {
    const { cell, high } = this.placed;
    if (!Number.isFinite(value)) return;
    const share = Math.min(1, Math.abs(value - middle) / reach);
    const end = themeColour(value < middle ? "heat-low" : "heat-high");
    context.fillStyle = mixed(themeColour("heat-middle"), end, share);
    context.fillRect(x + 0.5, y + 0.5, cell - 1, high - 1);
    if (cell < 25 || high < 13) return;
    context.fillStyle = share > 0.55 ? themeColour("heat-ink") : themeColour("ink");
    context.textAlign = "center";
    context.font = `${cell < 34 ? 9.5 : 11}px system-ui, sans-serif`;
    context.fillText(minus(value.toFixed(cell < 40 ? 2 : 3)), x + cell / 2, y + high / 2 + 0.5);
  }

  // The layer of the picked head, where this run has that head.
  pickedLayer() {
    const layer = view.head && this.placed.layers.find((one) => one.layer === view.head.layer);
    return layer && view.head.head < layer.heads ? layer : null;
  }

  pickedText(row) {
    const layer = this.pickedLayer();
    if (!layer) return "";
    const { head } = view.head;
    return `layer ${layer.layer}, head ${head}: ${minus(layer[view.which][row * layer.heads + head].toFixed(4))}`;
  }

  outlinePicked(context) {
    const layer = this.pickedLayer(), { layers, left, top, cell, high } = this.placed;
    if (!layer) return;
    context.strokeStyle = themeColour("ink");
    context.lineWidth = 2;
    context.strokeRect(left + view.head.head * cell, top + layers.indexOf(layer) * high, cell, high);
  }

  pick(event) {
    const box = this.canvas.getBoundingClientRect(), { layers, left, top, cell, high } = this.placed;
    const layer = layers[Math.floor((event.clientY - box.top - top) / high)];
    const head = Math.floor((event.clientX - box.left - left) / cell);
    const inside = layer && head >= 0 && head < layer.heads;
    view.pickHead(inside ? { layer: layer.layer, head } : null);
  }
}
