// One plot of curves on a canvas. What it shows is described by a function that returns
//
//   {unit, empty, logY, full, bothSides, each, signed, valueText(value), columns, tip(x, y) or none,
//    title, height, extent, readout: [node]                    instead of the plot's own; what stands beside its title
//    curves: [{name, colour, dash, marker, width, x, y,        the line; NaN is a gap
//              raw: {x, y, low, high, quiet}, band: {x, low, high}, points: {x, y}, link: {x, from, to},
//              marks: [{x, y, kind, text}], reference}]}
//
// Of a curve all but name, colour, x and y may be missing, and of the rest all but unit, empty, valueText, columns and
// curves. The range of y is that of `full`, every value, or the robust one (robustRange): of all curves together, or
// with `each` so wide that it holds the range of each, however short, and its lowest value. `quiet` values do not
// stretch it. `signed` values are differences to the curve that is the `reference`: 0 is shown and ticks have a sign.
// The range of x (but for a plot's own `extent`, where nobody zoomed), its measure and the cursor are shared by all
// plots of the page: they are in `view` (page.js). Input is in input.js.

const margin = { left: 60, right: 16, top: 12, bottom: 40 };
const kMarkerDistance = 16;  // pixels

const themeColours = new Map();  // of page.css, by name; emptied when the theme changes

function themeColour(name) {
  if (!themeColours.has(name)) {
    themeColours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return themeColours.get(name);
}

class Chart {
  constructor(parent, { title, height, describe }) {
    this.describe = describe;
    this.screenHeight = height;
    this.zoomY = null;
    this.unit = element("span", { className: "unit" });
    this.cut = element("span", { className: "unit cut" });
    this.readout = element("span", { className: "readout" });
    this.base = element("canvas", { tabIndex: 0 });
    this.base.setAttribute("role", "img");
    this.overlay = element("canvas", { className: "overlay" });
    this.overlay.setAttribute("aria-hidden", "true");
    this.tip = element("div", { className: "tip", hidden: true });
    this.plot = element("div", { className: "plot" }, this.base, this.overlay, this.tip);
    this.title = title;
    this.heading = element("b", {}, title);
    const name = element("span", {}, this.heading, " ", this.unit);
    const caption = element("figcaption", {}, name, this.readout, this.cut);
    this.figure = element("figure", {}, caption, this.plot);
    parent.append(this.figure);
    listenTo(this);
  }

  refresh() {
    this.shown = this.describe();
    this.unit.textContent = this.shown.unit;
    if (this.shown.title) this.heading.textContent = this.title = this.shown.title;
    this.readout.replaceChildren(...(this.shown.readout || []));
  }

  // Draws everything; `paper` is {width, height, ratio} where a printer decides.
  draw(paper) {
    const width = paper ? paper.width : this.plot.clientWidth;
    if (width === 0 || this.figure.hidden) return;
    this.width = width;
    this.height = this.shown.height || this.screenHeight;
    if (paper) this.height = Math.min(this.height, paper.height);
    this.ratio = paper ? paper.ratio : devicePixelRatio || 1;
    const context = this.prepare(this.base, paper);
    this.prepare(this.overlay, paper);
    const [xMin, xMax] = view.zoom || this.shown.extent || view.extent;
    this.sx = makeScale(xMin, xMax, view.logX, margin.left, width - margin.right);
    const [yMin, yMax] = this.rangeY();
    this.sy = makeScale(yMin, yMax, this.shown.logY, this.height - margin.bottom, margin.top);
    this.drawAxes(context);
    context.save();
    context.beginPath();
    context.rect(margin.left, margin.top - 1, width - margin.left - margin.right, this.plotHeight() + 2);
    context.clip();
    for (const curve of this.shown.curves) this.drawBehind(context, curve);
    for (const curve of this.shown.curves) this.drawLine(context, curve);
    for (const curve of this.shown.curves) this.drawPoints(context, curve);
    context.restore();
    for (const curve of this.shown.curves) this.drawMarks(context, curve);
    this.drawNotes(context);
    this.base.setAttribute("aria-label", this.inWords());
    this.drawCursor();
  }

  prepare(canvas, paper) {
    canvas.width = Math.round(this.width * this.ratio);
    canvas.height = Math.round(this.height * this.ratio);
    canvas.style.height = paper ? "auto" : `${this.height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.font = "12px system-ui, sans-serif";
    context.lineJoin = context.lineCap = "round";
    return context;
  }

  plotHeight() {
    return this.height - margin.top - margin.bottom;
  }

  // Curves are looked at where they are drawn, at every pixel of the axis, so that on a logarithmic one the early
  // steps weigh as much as they show. The few points of validation have a range of their own.
  rangeY() {
    if (this.zoomY) return this.zoomY;
    const { logY, bothSides, full, each, signed, curves } = this.shown, points = [], floor = [], together = [];
    const take = full ? takeAll : takeSamples;
    const lines = curves.map(({ x, y, raw, band, points: marked, reference }) => {
      const values = each ? [] : together;
      const parts = [...(reference ? [] : [[x, y]]), ...(band ? [[band.x, band.low], [band.x, band.high]] : []),
                     ...(raw && (full || !raw.quiet) ? [[raw.x, raw.low], [raw.x, raw.high]] : [])];
      for (const [xs, ys] of parts) take(values, xs, ys, this.sx);
      if (!bothSides || each) for (const [xs, ys] of parts) floor.push(lowestShown(xs, ys, this.sx, logY));
      if (marked) takeAll(points, marked.x, marked.y, this.sx);
      return values;
    });
    const rangeOf = full ? extremes : (values) => robustRange(values, bothSides);
    const drawable = (values) => values.filter((value) => !logY || value > 0);
    const ranges = [...new Set(lines), points].map((values) => rangeOf(drawable(values))).filter(Boolean);
    if (ranges.length === 0) return logY ? [1, 10] : [0, 1];
    const range = [Math.min(...floor, ...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high))];
    if (signed) range[0] = Math.min(range[0], 0), range[1] = Math.max(range[1], 0);
    return padded(range, logY);
  }

  drawAxes(context) {
    const { left, right, top, bottom } = margin, floor = this.height - bottom, end = this.width - right;
    context.lineWidth = 1;
    context.strokeStyle = themeColour("grid");
    context.fillStyle = themeColour("muted");
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const [tick, text] of labelledTicks(this.sx, view.measure, (end - left) / 90)) {
      const x = Math.round(this.sx.pixel(tick)) + 0.5;
      strokeLine(context, x, top, x, floor);
      context.fillText(text, x, floor + 7);
    }
    context.textAlign = "right";
    context.fillText(measures[view.measure].label, end, floor + 22);
    context.textBaseline = "middle";
    const { ticks, step } = ticksOf(this.sy, this.plotHeight() / 38);
    for (const tick of ticks) {
      const y = Math.round(this.sy.pixel(tick)) + 0.5;
      strokeLine(context, left, y, end, y);
      context.fillText((this.shown.signed && tick > 0 ? "+" : "") + tickText(tick, step), left - 8, y);
    }
    context.strokeStyle = themeColour("axis");
    strokeLine(context, left, floor + 0.5, end, floor + 0.5);
    if (this.shown.signed) strokeLine(context, left, this.sy.pixel(0), end, this.sy.pixel(0));
  }

  // The band of a group, and the raw curve, faint.
  drawBehind(context, { colour, raw, band }) {
    if (band) {
      context.globalAlpha = 0.18;
      context.fillStyle = colour;
      context.fill(bandPath(band.x, band.low, band.high, this.sx, this.sy));
    }
    if (raw) {
      context.globalAlpha = raw.quiet ? 0.15 : 0.24;
      context.strokeStyle = colour;
      context.lineWidth = 1;
      context.setLineDash([]);
      context.stroke(curvePath(raw.x, raw.low, raw.high, this.sx, this.sy));
    }
    context.globalAlpha = 1;
  }

  drawLine(context, { colour, dash = [], width = 1.8, x, y, link, alpha = 1 }) {
    context.globalAlpha = alpha;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke(curvePath(x, y, y, this.sx, this.sy));
    if (link) {
      context.setLineDash([1, 4]);
      const at = this.sx.pixel(link.x);
      strokeLine(context, at, this.sy.pixel(link.from), at, this.sy.pixel(link.to));
    }
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  // Points are joined by a thin line; where they crowd, some have no marker.
  drawPoints(context, { colour, marker, points }) {
    if (!points) return;
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.globalAlpha = 0.6;
    context.stroke(curvePath(points.x, points.y, points.y, this.sx, this.sy));
    context.globalAlpha = 1;
    context.fillStyle = themeColour("ground");
    context.lineWidth = 1.6;
    let last = -Infinity;
    for (let i = 0; i < points.x.length; i++) {
      const x = this.sx.pixel(points.x[i]), y = this.sy.pixel(points.y[i]);
      if (!(x - last >= kMarkerDistance) || !Number.isFinite(y)) continue;
      const path = signPath(marker, x, y);
      context.fill(path);
      context.stroke(path);
      last = x;
    }
  }

  // What happened to a run stands on its curve, or at the border where the curve is cut off.
  drawMarks(context, { colour, marks = [] }) {
    for (const mark of marks) {
      const x = this.sx.pixel(mark.x);
      if (!(x >= margin.left - 1 && x <= this.width - margin.right + 1)) continue;
      const path = signPath(mark.kind, x, this.markY(mark));
      context.lineWidth = 4;
      context.strokeStyle = themeColour("ground");
      context.stroke(path);
      context.lineWidth = 1.8;
      context.strokeStyle = colour;
      context.stroke(path);
    }
  }

  markY(mark) {
    const y = this.sy.pixel(mark.y), floor = this.height - margin.bottom;
    return Number.isFinite(y) ? Math.min(Math.max(y, margin.top), floor) : floor;
  }

  // How far the curves go beyond what is shown, or why there are none.
  drawNotes(context) {
    context.fillStyle = themeColour("muted");
    const { curves, empty } = this.shown;
    const shown = curves.some(({ x, y, points }) => this.reaches(x, y) || (points && this.reaches(points.x, points.y)));
    if (!shown) {
      context.textAlign = "center";
      context.textBaseline = "middle";
      const middle = margin.left + (this.width - margin.left - margin.right) / 2;
      const lines = wrapped(context, empty, this.width - margin.left - margin.right - 30);
      const above = margin.top + this.plotHeight() / 2 - 9 * (lines.length - 1);
      lines.forEach((line, i) => context.fillText(line, middle, above + 18 * i));
    }
    this.cut.textContent = shown && !this.zoomY ? this.cutText() : "";
  }

  cutText() {
    let lowest = Infinity, highest = -Infinity;
    for (const { x, y, raw } of this.shown.curves) {
      const behind = raw && !raw.quiet, low = behind ? raw.low : y, high = behind ? raw.high : y;
      for (let i = lowerBound(x, this.sx.min); i < x.length && x[i] <= this.sx.max; i++) {
        if (low[i] < lowest) lowest = low[i];
        if (high[i] > highest) highest = high[i];
      }
    }
    const { valueText } = this.shown, floor = this.height - margin.bottom;
    const above = this.sy.pixel(highest) < margin.top - 1, below = this.sy.pixel(lowest) > floor + 1;
    const parts = [above && `↑ up to ${valueText(highest)}`, below && `↓ down to ${valueText(lowest)}`];
    return parts.filter(Boolean).join(", ");
  }

  reaches(x, y) {
    const end = lowerBound(x, this.sx.max * (1 + 1e-9));
    for (let i = lowerBound(x, this.sx.min); i < end; i++) if (Number.isFinite(y[i])) return true;
    return false;
  }

  inWords() {
    const ends = this.shown.curves.slice(0, 8).map(({ name, x, y }) => {
      const last = lastFinite(y);
      return last < 0 ? name : `${name} ends at ${this.shown.valueText(y[last])}`;
    });
    return `${this.title} (${this.shown.unit}) over ${measures[view.measure].label}: ${ends.join("; ") || "no curves"}`;
  }

  // The vertical line through all plots, and in the one under the pointer the values there.
  drawCursor() {
    const context = this.overlay.getContext("2d"), x = view.cursor;
    context.clearRect(0, 0, this.width, this.height);
    this.tip.hidden = true;
    if (this.selection) this.drawSelection(context);
    if (x === null || !this.sx || !(x >= this.sx.min && x <= this.sx.max)) return;
    const at = this.sx.pixel(x);
    context.strokeStyle = themeColour("muted");
    context.lineWidth = 1;
    strokeLine(context, Math.round(at) + 0.5, margin.top, Math.round(at) + 0.5, this.height - margin.bottom);
    for (const { colour, x: xs, y, quietDot } of this.shown.curves) {
      const pixel = this.sy.pixel(valueAt(xs, y, x));
      if (quietDot || !(pixel >= margin.top - 1 && pixel <= this.height - margin.bottom + 1)) continue;
      context.fillStyle = colour;
      context.fill(signPath("dot", at, pixel));
    }
    if (view.pointer && view.pointer.chart === this) showTip(this, x, at);
  }

  drawSelection(context) {
    const { x0, x1, y0, y1 } = this.selection;
    context.fillStyle = context.strokeStyle = themeColour("accent");
    context.globalAlpha = 0.14;
    context.fillRect(x0, y0, x1 - x0, y1 - y0);
    context.globalAlpha = 1;
    context.lineWidth = 1;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }

  // The marks within reach of the pointer.
  marksNear(x, y) {
    const near = [];
    for (const curve of this.shown.curves) {
      for (const mark of curve.marks || []) {
        const across = Math.abs(this.sx.pixel(mark.x) - x), along = y === null ? 0 : Math.abs(this.markY(mark) - y);
        if (across < 9 && along < 24) near.push({ ...mark, name: curve.name, colour: curve.colour });
      }
    }
    return near;
  }
}

function takeSamples(values, x, y, sx) {
  const end = sx.pixel(sx.max);
  for (let pixel = sx.pixel(sx.min); pixel <= end; pixel++) values.push(valueAt(x, y, sx.value(pixel)));
}

function takeAll(values, x, y, sx) {
  for (let i = lowerBound(x, sx.min); i < x.length && x[i] <= sx.max; i++) values.push(y[i]);
}

function lowestShown(x, y, sx, positive) {
  let lowest = Infinity;
  for (let i = lowerBound(x, sx.min); i < x.length && x[i] <= sx.max; i++) {
    if (y[i] < lowest && (!positive || y[i] > 0)) lowest = y[i];
  }
  return lowest;
}

function extremes(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) low = Math.min(low, value), high = Math.max(high, value);
  return low <= high ? [low, high] : null;
}

function padded([low, high], log) {
  if (log) {
    const room = low === high ? 1.5 : (high / low) ** 0.04;
    return [low / room, high * room];
  }
  const room = low === high ? Math.abs(low) * 0.05 || 1 : (high - low) * 0.04;
  return [low - room, high + room];
}

function tickText(tick, step) {
  if (tick === 0) return "0";
  const size = Math.abs(tick), tiny = step === null ? size < 1e-3 : decimalsOf(step) > 5;
  if (tiny || size >= 1e5) return minus(tick.toExponential(step ? decimalsOf(step / size) : 0).replace("e+", "e"));
  return minus(step === null ? trimmed(tick.toPrecision(3)) : tick.toFixed(decimalsOf(step)));
}

function strokeLine(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function lastFinite(values) {
  let i = values.length - 1;
  while (i >= 0 && !Number.isFinite(values[i])) i--;
  return i;
}

function wrapped(context, text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = lines[lines.length - 1] ? `${lines[lines.length - 1]} ${word}` : word;
    if (context.measureText(longer).width > width && lines[lines.length - 1]) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
