// The values at the cursor.

// The values of all curves at x, beside the cursor.
function showTip(chart, x, at) {
  const { tip, shown } = chart, pointer = view.pointer;
  const content = shown.tip ? shown.tip(x, chart.sy.value(pointer.y)) : valueTable(shown, x);
  const marks = chart.marksNear(at, pointer.y).map((mark) =>
    element("p", {}, swatch(mark), ` ${mark.name}: ${mark.text || markNames[mark.kind]}`));
  tip.replaceChildren(element("p", { className: "where" }, view.placeText(x)), content, ...marks);
  tip.hidden = false;
  const room = chart.width - at - margin.right;
  const left = room > tip.offsetWidth + 14 || room > at ? at + 14 : at - tip.offsetWidth - 14;
  tip.style.left = `${Math.max(0, Math.min(left, chart.width - tip.offsetWidth))}px`;
  tip.style.top = `${margin.top + 4}px`;
}

// One line a curve: the line drawn, what lies behind it, the points; "~" where a value lies between two of them.
function valueTable({ curves, columns, valueText }, x) {
  const cell = (value, exact = true) => (Number.isFinite(value) ? (exact ? "" : "~") + valueText(value) : "");
  const here = curves.filter(({ x: xs, y, points, reference }) => !reference && (
    Number.isFinite(valueAt(xs, y, x)) || (points && Number.isFinite(valueAt(points.x, points.y, x)))));
  const valueOf = {
    raw: ({ raw }) => (raw ? cell(nearest(raw.x, raw.y, x)) : ""),
    validation: ({ points }) => (points ? cell(valueAt(points.x, points.y, x), points.x.includes(x)) : ""),
  };
  const drawn = ({ x: xs, y }) => cell(valueAt(xs, y, x));
  const rows = here.map((curve) => element(
    "tr", {}, element("th", {}, swatch(curve), ` ${curve.name}`),
    ...columns.map((name) => element("td", {}, (valueOf[name] || drawn)(curve)))));
  const names = columns.map((name) => element("td", {}, name));
  const head = columns.length < 2 ? [] : [element("tr", {}, element("th"), ...names)];
  return element("table", {}, ...head, ...rows);
}

// The value at the x that is nearest, none outside of the curve.
function nearest(x, y, at) {
  if (x.length === 0 || at < x[0] || at > x[x.length - 1]) return NaN;
  const after = lowerBound(x, at);
  return y[after > 0 && at - x[after - 1] < x[after] - at ? after - 1 : after];
}
