// Mouse, touch and keyboard on a plot: cursor, zoom, moving along.

const kDragged = 6;  // pixels; less is a click

function listenTo(chart) {
  const { base } = chart, touches = new Map();
  chart.selection = null;
  let drag = null;
  const place = (event) => {
    const box = base.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const point = (at) => {
    view.pointer = { chart, y: at.y };
    view.setCursor(at.x >= margin.left && at.x <= chart.width - margin.right ? chart.sx.value(at.x) : null);
  };

  base.addEventListener("pointerdown", (event) => {
    const at = place(event);
    if (event.pointerType === "touch") {
      touches.set(event.pointerId, at);
      drag = touches.size === 2 ? pinchFrom(chart, touches) : null;
      return touches.size === 1 ? point(at) : undefined;
    }
    if (event.button > 1) return undefined;
    base.setPointerCapture(event.pointerId);
    drag = { kind: event.shiftKey || event.button === 1 ? "move" : "zoom", from: at, sx: chart.sx };
    return undefined;
  });

  base.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (touches.has(event.pointerId)) touches.set(event.pointerId, at);
    if (!drag) return point(at);
    if (drag.kind === "pinch") return pinch(drag, touches);
    if (drag.kind === "move") return view.setZoom(moved(drag, at.x));
    chart.selection = selectionOf(chart, drag.from, at);
    return chart.drawCursor();
  });

  const end = (event) => {
    touches.delete(event.pointerId);
    const { selection } = chart;
    chart.selection = drag = null;
    if (selection && event.type === "pointerup") zoomInto(chart, selection);
    else chart.drawCursor();
  };
  base.addEventListener("pointerup", end);
  base.addEventListener("pointercancel", end);
  base.addEventListener("pointerleave", () => {
    if (drag) return;
    view.pointer = null;
    view.pickHead(null);
    view.setCursor(null);
  });
  base.addEventListener("dblclick", () => view.resetZoom());
  base.addEventListener("wheel", (event) => turnWheel(chart, event, place(event)), { passive: false });
  base.addEventListener("keydown", (event) => pressKey(chart, event));
  base.addEventListener("blur", () => view.setCursor(null));
}

// The rectangle between two places; across its whole height or width where it is hardly high or wide.
function selectionOf(chart, from, to) {
  const { left, top } = margin, right = chart.width - margin.right, floor = chart.height - margin.bottom;
  const between = (a, b, low, high) => [a, b].map((at) => Math.min(Math.max(at, low), high)).sort((p, q) => p - q);
  const wide = Math.abs(to.x - from.x) > kDragged, high = Math.abs(to.y - from.y) > 3 * kDragged;
  if (!wide && !high) return null;
  const [x0, x1] = wide ? between(from.x, to.x, left, right) : [left, right];
  const [y0, y1] = high ? between(from.y, to.y, top, floor) : [top, floor];
  return { x0, x1, y0, y1, wide, high };
}

function zoomInto(chart, { x0, x1, y0, y1, wide, high }) {
  if (high) chart.zoomY = [chart.sy.value(y1), chart.sy.value(y0)];
  view.setZoom(wide ? [chart.sx.value(x0), chart.sx.value(x1)] : view.zoom);
}

function moved({ from, sx }, x) {
  const by = from.x - x;
  return [sx.value(sx.pixel(sx.min) + by), sx.value(sx.pixel(sx.max) + by)];
}

// Around the pixel `at`, `factor` times as much as now.
function zoomedAround(chart, at, factor) {
  const { sx } = chart, low = sx.pixel(sx.min), high = sx.pixel(sx.max);
  return [sx.value(at + (low - at) * factor), sx.value(at + (high - at) * factor)];
}

// The page scrolls under the wheel, unless somebody is at work in the plot.
function turnWheel(chart, event, at) {
  const atWork = event.ctrlKey || event.metaKey || document.activeElement === chart.base;
  if (!atWork) return;
  event.preventDefault();
  const sideways = { from: { x: event.deltaX }, sx: chart.sx };
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) return view.setZoom(moved(sideways, 0));
  const pixels = event.deltaY * [1, 30, 400][event.deltaMode];
  return view.setZoom(zoomedAround(chart, at.x, Math.exp(pixels * (Math.abs(pixels) < 20 ? 0.01 : 0.002))));
}

// Two fingers: what was between them stays between them.
function pinchFrom(chart, touches) {
  return { kind: "pinch", chart, sx: chart.sx, from: [...touches.values()].map((at) => at.x).sort((a, b) => a - b) };
}

function pinch({ sx, from }, touches) {
  const to = [...touches.values()].map((at) => at.x).sort((a, b) => a - b);
  if (to.length < 2) return;
  const factor = Math.max(from[1] - from[0], 10) / Math.max(to[1] - to[0], 10);
  const was = (x) => sx.value(from[0] + (x - to[0]) * factor);
  view.setZoom([was(sx.pixel(sx.min)), was(sx.pixel(sx.max))]);
}

function pressKey(chart, event) {
  const { sx } = chart, low = sx.pixel(sx.min), high = sx.pixel(sx.max);
  const at = view.cursor === null ? (low + high) / 2 : sx.pixel(view.cursor);
  const step = (high - low) * (event.shiftKey ? 0.1 : 0.01);
  const actions = {
    ArrowLeft: () => point(Math.max(low, at - step)),
    ArrowRight: () => point(Math.min(high, at + step)),
    "+": () => view.setZoom(zoomedAround(chart, at, 0.7)),
    "=": () => view.setZoom(zoomedAround(chart, at, 0.7)),
    "-": () => view.setZoom(zoomedAround(chart, at, 1 / 0.7)),
    0: () => view.resetZoom(),
    Escape: () => view.resetZoom(),
  };
  const point = (pixel) => {
    view.pointer = { chart, y: null };
    view.setCursor(sx.value(pixel));
    announce(chart.tip.innerText);
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}
