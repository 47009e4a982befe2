// The panels: each is a small function that describes what its plot shows (chart.js draws it). A new panel is
// such a function and a line in page.js.

// What the curves are of: single runs, or groups of runs that differ in their seed alone, drawn as their mean.
function shownSeries() {
  const columns = view.grouped ? data.columns : runs.map((run) => ({ label: run.name, members: [run.index] }));
  return columns.map(({ label, members }) => seriesOf(label, members.map((i) => runs[i])))
    .filter(({ members }) => members.length > 0);
}

function seriesOf(name, all) {
  const members = all.filter((run) => !view.hidden.has(run.index));
  const shown = members.length > 1 ? `${name}, mean of ${members.length}` : members.map((run) => run.name).join();
  return { name: shown, members, ...styleOf(all[0]) };
}

// All runs of a group look alike while it is drawn as one.
function styleOf(run) {
  const column = data.columns.findIndex(({ members }) => members.includes(run.index));
  const { colour, dark_colour, dash, marker } = runs[view.grouped && groups.length ? column : run.index].look;
  return { colour: view.dark() ? dark_colour : colour, dash: dash ? dash.split(" ").map(Number) : [], marker };
}

// The runs that the others are compared with: the baseline, or its whole group.
function baselineMembers() {
  const group = view.grouped && groups.find(({ members }) => members.includes(baseline));
  return group ? group.members : [baseline];
}

// The curve {x, y, low, high} of a quantity of the train or validation rows.
function curveOf(run, rows, y, low = y, high = y) {
  const x = view.abscissae(run, rows);
  return x.length ? { x, y, low, high } : { x, y: x, low: x, high: x };
}

function trainCurve(run) {
  const { loss, low = loss, high = loss } = run.train;
  return curveOf(run, run.train, loss, low, high);
}

function validationCurve(run) {
  return curveOf(run, run.validation, run.validation.loss);
}

// `curve` minus the baseline, where both have a value. (What a thinned curve's points hide cancels in part only, so
// that their lowest and highest differences are not known.)
function against(curve, base) {
  if (!base) return curve;
  const y = differences(curve.x, curve.y, base.x, base.y);
  return { x: curve.x, y, low: y, high: y };
}

// One quantity of a series: the smoothed line and what lies behind it, the raw curve of a run or the band of a group.
function drawnLine(series, quantityOf, base) {
  const curves = series.members.map((run) => against(quantityOf(run), base)).filter((curve) => curve.x.length > 0);
  const lines = curves.map((curve) => ({ x: curve.x, y: smoothed(curve.x, curve.y, view.scale(), view.logX) }));
  if (lines.length === 0) return { x: [], y: [] };
  if (series.members.length > 1) {
    const mean = meanOf(lines);
    return { x: mean.x, y: mean.y, band: mean };
  }
  const raw = view.raw && view.smoothing > 0 ? { ...curves[0], quiet: base !== null } : null;
  return { ...lines[0], raw };
}

// A member that has no such rows takes no part in the mean of its group.
function meanOfDrawn(curves) {
  const drawn = curves.filter((curve) => curve.x.length > 0);
  return drawn.length > 1 ? meanOf(drawn) : drawn[0] || curves[0];
}

function drawnPoints(series, base) {
  return meanOfDrawn(series.members.map((run) => against(validationCurve(run), base)));
}

const kSkipped = { x: [], y: [] };

// The training line, its surroundings and the validation points of a series, or of its difference to the baseline.
function lossCurve(series, baseTrain = null, baseValidation = null) {
  return {
    ...series,
    ...(view.train ? drawnLine(series, trainCurve, baseTrain) : kSkipped),
    points: view.validation ? drawnPoints(series, baseValidation) : null,
  };
}

function lossColumns() {
  return [...(view.train ? ["train"] : []), ...(view.train && view.raw && view.smoothing > 0 ? ["raw"] : []),
          ...(view.validation ? ["validation"] : [])];
}

function lossPanel() {
  const series = shownSeries(), curves = series.map((one) => lossCurve(one));
  curves.forEach((curve) => addMarks(curve, curves));
  return {
    curves,
    unit: "nats per token",
    empty: emptyText(series),
    height: differenceIsShown() ? 340 : 440,
    logY: view.logY,
    full: view.full,
    columns: lossColumns(),
    valueText: lossText,
  };
}

// There is something to subtract, and somebody wants it subtracted.
function differenceIsShown() {
  return view.show !== "loss" && runs.length > 1 && !(view.grouped && data.columns.length < 2);
}

// Every loss minus the baseline's: what two runs differ by is often less than the width of their lines. The baseline
// itself is the line at zero; of a group of seeds it has the band of their spread.
function differencePanel() {
  const base = baselineMembers(), isBase = ({ members }) => members.some((run) => base.includes(run));
  const mean = (curveOf) => meanOfDrawn(base.map(curveOf));
  const baseTrain = mean(trainCurve), baseValidation = mean(validationCurve);
  const baseName = base.length > 1 ? groups.find(({ members }) => members.includes(baseline)).name : baseline.name;
  const series = shownSeries(), others = series.filter((one) => !isBase(one));
  const curves = others.map((one) => lossCurve(one, baseTrain, baseValidation));
  curves.forEach((curve) => addMarks(curve));
  const missing = curves.filter((curve) => !isSomewhere(curve)).map(({ name }) => name);
  const empty = missing.length === curves.length;
  const zero = series.filter(isBase).map((one) => referenceCurve(one, baseTrain, baseValidation));
  return {
    title: `Difference to ${baseName}`,
    unit: "nats per token, below zero is better",
    readout: [...curves.map(readoutOf).filter(Boolean), ...(missing.length && !empty ? [absent(missing)] : [])],
    curves: empty ? [] : [...zero, ...curves],
    empty: others.length ? noDifferenceText() : emptyText(others),
    height: empty ? 110 : view.show === "difference" ? 440 : 260,
    full: view.full,
    bothSides: true,
    signed: true,
    columns: lossColumns(),
    valueText: signedText,
  };
}

const isSomewhere = ({ y, points }) => y.some(Number.isFinite) || Boolean(points && points.y.some(Number.isFinite));

// Zero all along the baseline's curve.
function referenceCurve(series, baseTrain, baseValidation) {
  const { raw, points, ...curve } = lossCurve(series, baseTrain, baseValidation);
  if (series.members.length > 1 && curve.x.length > 0) return { ...curve, reference: true };
  const { x } = baseTrain.x.length ? baseTrain : baseValidation;
  return { ...curve, x, y: Array.from(x, () => 0), reference: true };
}

// The last validation's difference, or where there is none that of the smoothed training loss.
function readoutOf(curve) {
  const { x, y, high } = curve.points && lastFinite(curve.points.y) >= 0 ? curve.points : curve;
  const last = lastFinite(y);
  if (last < 0) return null;
  const spread = curve.members.length > 1 && high ? ` ± ${lossText(high[last] - y[last])}` : "";
  const where = `${y === curve.y ? "training" : "validation"} at ${view.placeText(x[last])}`;
  return element("span", { title: `${curve.name}: ${where}` }, swatch(curve),
                 element("b", {}, signedText(y[last]), spread), ` ${where}`);
}

function absent(names) {
  return element("span", { className: "unit" }, `${names.join(", ")}: no part of this axis in common`);
}

function noDifferenceText() {
  if (!view.train && !view.validation) return "Neither training nor validation is shown.";
  const hint = view.hasForks() && !view.aligned ? " Forks may, when they start from zero." : "";
  return `No run shares a part of this axis with the baseline.${hint}`;
}

function emptyText(series) {
  if (view.visible().length === 0) return "All runs are hidden.";
  if (series.length === 0) return "Only the baseline is shown.";
  if (!view.train && !view.validation) return "Neither training nor validation is shown.";
  return view.measure === "flops" ? "The FLOPs of these runs are not known." : "There is nothing here.";
}

// What happened to the run of a curve stands on the curve; a fork begins on its parent's, if that is among `others`.
function addMarks(curve, others = []) {
  curve.marks = [];
  if (curve.members.length !== 1) return;
  const [run] = curve.members, line = curve.x.length ? curve : curve.points || curve;
  const parent = others.find(({ members }) => members.length === 1 && members[0].index === run.fork_of);
  for (const mark of run.marks) {
    const x = view.xOfStep(run, mark.step);
    const onParent = mark.kind === "fork" && parent && !view.aligned ? heightAt(parent, x) : NaN;
    const y = Number.isFinite(onParent) ? onParent : heightAt(line, x);
    if (!Number.isFinite(y)) continue;
    curve.marks.push({ ...mark, x, y });
    const first = line.y.findIndex(Number.isFinite);
    if (Number.isFinite(onParent) && first >= 0) curve.link = { x, from: onParent, to: line.y[first] };
  }
}

// The line's height at x, in a gap that of the last value before, before the line that of its first.
function heightAt({ x, y }, at) {
  const exact = valueAt(x, y, at);
  if (Number.isFinite(exact)) return exact;
  let i = Math.min(lowerBound(x, at), x.length - 1);
  while (i > 0 && !Number.isFinite(y[i])) i--;
  return i >= 0 && Number.isFinite(y[i]) ? y[i] : y.find(Number.isFinite) ?? NaN;
}

function gradNormPanel() {
  return smallPanel((run) => curveOf(run, run.train, run.train.grad_norm), "before clipping", true);
}

function learningRatePanel() {
  return smallPanel((run) => curveOf(run, run.train, run.train.lr), "", false);
}

// A quantity of the train rows, its y axis logarithmic where that of the loss is.
function smallPanel(quantityOf, unit, noisy) {
  const curves = shownSeries().map((one) => ({
    ...one,
    ...(noisy ? drawnLine(one, quantityOf, null) : plainLine(one, quantityOf)),
    width: 1.5,
  }));
  return {
    curves, unit,
    empty: "There is nothing here.",
    logY: view.logY,
    full: view.full || !noisy,
    bothSides: noisy,
    each: true,
    columns: noisy && view.raw && view.smoothing > 0 ? ["smoothed", "raw"] : ["value"],
    valueText: shortText,
  };
}

function plainLine(series, quantityOf) {
  const { x, y } = quantityOf(series.members[0]);
  return { x, y };
}
