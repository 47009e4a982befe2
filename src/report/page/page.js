// The page: what is shown, and the panels that show it. Controls are in controls.js.

const kPaper = { width: 720, height: 340, ratio: 3 };

// What people set is kept in the address, so that a view can be kept as a bookmark.
const kDefaults = {
  measure: "tokens", logX: false, logY: false, show: "both", smoothing: data.smoothing, raw: true, train: true,
  validation: true, full: false, aligned: false, grouped: true, which: "s", scaleShare: 1, theme: "auto",
};

const view = {
  ...kDefaults,
  hidden: new Set(),  // indices of runs
  zoom: null,         // [low, high] of x
  cursor: null,       // x
  pointer: null,      // {chart, y}: where it is; y is null for the keyboard
  head: null,         // {layer, head} under the pointer, shown in all runs
  paper: false,

  dark() {
    if (view.paper) return false;
    return view.theme === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : view.theme === "dark";
  },
  hasForks: () => runs.some((run) => run.marks.some((mark) => mark.kind === "fork") || run.fork_of !== null),
  visible: () => runs.filter((run) => !view.hidden.has(run.index)),
  abscissae: (run, rows) => abscissae(run, rows, view.measure, view.aligned),
  xOfStep: (run, step) => xOfStep(run, step, view.measure, view.aligned),
  scale: () => view.smoothing * view.longest,
  placeText: (x) => (view.measure === "steps" ? `step ${withCommas(x)}` : placeText(x, view.measure)),

  // All of x that visible runs reach, from the start unless they lie far from it; and the extent of the longest run,
  // which smoothing is a part of.
  measureExtent() {
    const extents = runs.map((run) => {
      const parts = [run.train, run.validation].map((rows) => view.abscissae(run, rows)).filter((x) => x.length > 0);
      const from = parts.map((x) => (view.logX ? x.find((value) => value > 0) : x[0])).filter(Number.isFinite);
      return { run, low: Math.min(...from), high: Math.max(...parts.map((x) => x[x.length - 1])) };
    }).filter(({ low, high }) => low <= high);
    const distance = ({ low, high }) => (view.logX ? Math.log(high / low) : high - low);
    view.longest = Math.max(0, ...extents.map(distance));
    const shown = extents.filter(({ run }) => !view.hidden.has(run.index));
    let low = Math.min(...shown.map((extent) => extent.low)), high = Math.max(...shown.map((extent) => extent.high));
    if (!(low <= high)) [low, high] = [0, 1];
    if (view.logX) view.extent = low > 0 ? [low, Math.max(high, low * 1.01)] : [1, 10];
    else view.extent = [low < 0.3 * high || low === high ? Math.min(0, low) : low, high > low ? high : low + 1];
  },
  rangeX: () => view.zoom || view.extent,

  setZoom(range) {
    if (range) {
      const [low, high] = [Math.max(range[0], view.extent[0]), Math.min(range[1], view.extent[1])];
      const size = range[1] - range[0];
      // Moving stops at the border, and does not squeeze.
      if (low > range[0] && high === range[1]) range = [low, Math.min(low + size, view.extent[1])];
      else if (high < range[1] && low === range[0]) range = [Math.max(high - size, view.extent[0]), high];
      else range = [low, high];
      if (!(range[1] - range[0] > 1e-9 * view.extent[1])) return;
      if (range[0] <= view.extent[0] && range[1] >= view.extent[1]) range = null;
    }
    view.zoom = range;
    schedule("draw");
  },
  resetZoom() {
    view.zoom = null;
    for (const chart of charts()) chart.zoomY = null;
    schedule("draw");
  },
  setCursor(x) {
    view.cursor = x;
    schedule("cursor");
  },
  pickHead(head) {
    const same = (a, b) => a === b || (a && b && a.layer === b.layer && a.head === b.head);
    if (same(head, view.head)) return;
    view.head = head && { layer: head.layer, head: head.head };
    schedule("scales");
  },
  // Where the maps of s and b stand: at the cursor, or where the slider says.
  scaleX() {
    if (view.cursor !== null) return view.cursor;
    const [low, high] = view.scaleExtent;
    return low + view.scaleShare * (high - low);
  },

  // Changes a setting; the zoom follows into another measure as well as it can.
  set(name, value) {
    if (view[name] === value) return;
    const reference = view.visible().reduce((a, b) => (b.train.rows > (a ? a.train.rows : 0) ? b : a), null);
    const before = reference && view.abscissae(reference, reference.train);
    view[name] = value;
    if (view.zoom && ["measure", "aligned"].includes(name) && before) {
      const after = view.abscissae(reference, reference.train);
      const inside = (x) => Math.min(Math.max(x, before[0]), before[before.length - 1]);
      const range = view.zoom.map((x) => valueAt(before, after, inside(x)));
      view.zoom = range[1] > range[0] ? range : null;
    }
    if (["show", "logY", "full"].includes(name)) for (const chart of charts()) chart.zoomY = null;
    if (name === "which") {
      view.head = null;
      for (const { chart } of blocks) chart.zoomY = null;
    }
    view.cursor = null;
    schedule("refresh");
  },
  // Hides these runs if one of them is shown, otherwise shows all of them.
  toggleRuns(indices) {
    const hide = indices.some((index) => !view.hidden.has(index));
    for (const index of indices) view.hidden[hide ? "add" : "delete"](index);
    schedule("refresh");
  },
  // Shows these runs alone, or all again.
  isolate(indices) {
    const alone = view.visible().length === indices.length && !indices.some((index) => view.hidden.has(index));
    view.hidden = new Set(alone ? [] : runs.map((run) => run.index).filter((other) => !indices.includes(other)));
    schedule("refresh");
  },
};

const panels = [
  { title: "Loss", height: 440, describe: lossPanel, wide: true },
  { title: "Difference", height: 260, describe: differencePanel, wide: true },
  { title: "Gradient norm", height: 220, describe: gradNormPanel },
  { title: "Learning rate", height: 220, describe: learningRatePanel },
].map(({ wide, ...options }) => {
  const chart = new Chart(document.getElementById("panels"), options);
  chart.wide = Boolean(wide);
  chart.figure.classList.toggle("wide", chart.wide);
  return chart;
});
panels[1].figure.after(element("p", { id: "caption", className: "note" }));
let blocks = [];  // {run, element, map, chart}: one for every run that has a row scale

function charts() {
  return [...panels, ...blocks.map(({ chart }) => chart)];
}

function makeBlocks() {
  const parent = document.getElementById("scale-panels");
  blocks = runs.filter((run) => run.attention).map((run) => {
    const box = element("div", { className: "scale-block" }, element("h3", {}, run.name));
    parent.append(box);
    const map = new HeatMap(box, run);
    const chart = new Chart(box, { title: "Every head", height: 260, describe: () => headsPanel(run) });
    return { run, box, map, chart };
  });
  document.getElementById("scales").hidden = blocks.length === 0;
}

// What has to be done before the next picture: "cursor" < "scales" < "draw" < "refresh", each including the ones
// before it.
const kLevels = ["cursor", "scales", "draw", "refresh"];
let due = -1;

function schedule(level) {
  if (due < 0) requestAnimationFrame(update);
  due = Math.max(due, kLevels.indexOf(level));
}

function update() {
  const level = due;
  due = -1;
  if (level >= 3) refresh();
  if (level >= 2) draw();
  else if (level >= 1) drawScales(true);
  else drawCursors();
  if (level >= 2) saveAddress();
}

function refresh() {
  document.documentElement.dataset.theme = view.dark() ? "dark" : "light";
  themeColours.clear();
  view.measureExtent();
  panels[0].figure.hidden = view.show === "difference" && differenceIsShown();
  panels[1].figure.hidden = !differenceIsShown();
  for (const chart of panels) chart.refresh();
  refreshScales();
  showControls();
}

function refreshScales() {
  const shown = blocks.filter(({ run }) => !view.hidden.has(run.index) && heads(run).length > 0);
  for (const block of blocks) {
    block.box.hidden = !shown.includes(block);
    placeAttention(block.run);
    if (!block.box.hidden) block.chart.refresh();
  }
  view.scaleRange = scaleRange(shown.map(({ run }) => run));
  const ends = shown.flatMap(({ run }) => [run.attention.x[0], run.attention.x[run.attention.rows - 1]])
    .filter(Number.isFinite);
  view.scaleExtent = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
}

function draw(paper) {
  for (const chart of panels) chart.draw(paper && (chart.wide ? paper : { ...paper, width: (paper.width - 20) / 2 }));
  drawScales(false, paper);
  showZoom();
}

function drawScales(again, paper) {
  for (const { box, map, chart } of blocks) {
    if (box.hidden) continue;
    if (again) chart.refresh();
    map.draw(view.scaleRange, paper);
    chart.draw(paper && { ...paper, width: paper.width - kHeatWidth - 20 });
  }
  showScale();
}

function drawCursors() {
  for (const chart of charts()) chart.drawCursor();
  for (const { box, map } of blocks) if (!box.hidden) map.draw(view.scaleRange);
  showScale();
}

function forPaper(on) {
  view.paper = on;
  view.cursor = null;
  refresh();
  draw(on ? kPaper : undefined);
}

document.title = `${data.title} – keen compare`;
document.getElementById("title").textContent = data.title;
document.getElementById("footer").textContent = `Written by keen ${data.version} compare. Losses are nats per token.`;
readAddress();
makeBlocks();
makeControls();
fillTables();
fillFigures();
refresh();
draw();
new ResizeObserver(() => schedule("draw")).observe(document.getElementById("panels"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => schedule("refresh"));
addEventListener("hashchange", () => {
  readAddress();
  schedule("refresh");
});
addEventListener("beforeprint", () => forPaper(true));
addEventListener("afterprint", () => forPaper(false));
