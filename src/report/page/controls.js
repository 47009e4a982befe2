// Controls: the bar over the curves, the legend, and the address that keeps their settings.

const controls = {};  // what shows a setting, by its name

// One choice out of some: values and their labels.
function choice(name, label, options) {
  const inputs = options.map(([value, text, title = ""]) => {
    const input = element("input", { type: "radio", name, value: String(value) });
    input.addEventListener("change", () => view.set(name, value));
    return { value, input, box: element("label", { title }, input, element("span", {}, text)) };
  });
  controls[name] = () => inputs.forEach(({ value, input }) => (input.checked = view[name] === value));
  const boxes = inputs.map(({ box }) => box);
  return element("div", { className: "choice", role: "radiogroup", "aria-label": label }, ...boxes);
}

function check(name, text, title) {
  const input = element("input", { type: "checkbox", name });
  input.addEventListener("change", () => view.set(name, input.checked));
  controls[name] = () => (input.checked = view[name]);
  return element("label", { className: "check", title }, input, element("span", {}, text));
}

// A slider from 0 to 1, and what it means in words.
function slider(name, label, { toValue, toShare, words }) {
  const input = element("input", { type: "range", min: 0, max: 1, step: 0.005, "aria-label": label });
  const output = element("output");
  input.addEventListener("input", () => view.set(name, toValue(Number(input.value))));
  controls[name] = () => {
    input.value = toShare(view[name]);
    output.textContent = words();
    input.setAttribute("aria-valuetext", output.textContent);
  };
  return element("label", { className: "slider" }, element("span", {}, label), input, output);
}

// Of the longest curve: none, then 0.0005 to 0.2, every part of the slider a factor.
const smoothing = {
  toValue: (share) => (share === 0 ? 0 : 0.0005 * 400 ** share),
  toShare: (value) => (value === 0 ? 0 : Math.log(value / 0.0005) / Math.log(400)),
  words: () => {
    if (view.smoothing === 0) return "none";
    return view.logX ? `a factor of ${Math.exp(view.scale()).toPrecision(3)}` : placeText(view.scale(), view.measure);
  },
};

let resetButton = null;

function makeControls() {
  const known = ["steps", "tokens", "seconds", "flops"].filter((measure) => runs.some((run) => isKnown(run, measure)));
  const names = { steps: "steps", tokens: "tokens", seconds: "time", flops: "FLOPs" };
  const axes = known.map((measure) => [measure, names[measure], `over ${measures[measure].label}`]);
  const losses = [["both", "both", `the loss, and below it the difference to ${baseline.name}`], ["loss", "loss"],
                  ["difference", "difference", `to ${baseline.name}`]];
  resetButton = element("button", { type: "button", className: "quiet" }, "reset zoom");
  resetButton.addEventListener("click", () => view.resetZoom());
  const rows = [
    [choice("measure", "Horizontal axis", axes),
     runs.length > 1 && choice("show", "Loss, difference to the baseline, or both", losses),
     slider("smoothing", "smoothing", smoothing), resetButton],
    [check("train", "training", "Show the training loss"),
     check("validation", "validation", "Show the validation loss"),
     check("raw", "raw", "Show what was logged, faint, behind the smoothed curves"),
     check("logX", "log x", "Logarithmic horizontal axis"), check("logY", "log y", "Logarithmic vertical axis"),
     check("full", "all of y", "Show outliers such as the first steps, too"),
     view.hasForks() && check("aligned", "forks from zero", "Let every fork begin where its parent began"),
     groups.length > 0 &&
       check("grouped", "mean of seeds", "Runs that differ in their seed alone: mean and standard deviation")],
  ];
  for (const row of rows) {
    document.getElementById("controls").append(element("div", { className: "controls" }, ...row.filter(Boolean)));
  }
  makeLegend();
  makeScaleControls();
  document.getElementById("theme").addEventListener("click", () => {
    const next = { auto: view.dark() ? "light" : "dark", light: "dark", dark: "light" };
    view.set("theme", next[view.theme]);
  });
}

function makeLegend() {
  const legend = document.getElementById("legend");
  for (const { label, members } of data.columns) {
    const all = members.map((index) => runs[index]);
    if (all.length > 1) legend.append(legendButton(label, all, true, [`${all.length} seeds`]));
    for (const run of all) {
      const some = run.steps !== null && run.planned_steps !== null && run.steps < run.planned_steps;
      const notes = some ? [`${withCommas(run.steps)} of ${withCommas(run.planned_steps)} steps`] : [];
      legend.append(legendButton(run.name, [run], all.length > 1 ? false : null, notes));
    }
  }
}

// Of a run, or of a group of runs; `whenGrouped` says when it is there: while groups are drawn as one, while they are
// not, or always (null).
function legendButton(text, members, whenGrouped, notes) {
  const name = element("span", { className: "name" }, text);
  const words = [...(members.includes(baseline) && runs.length > 1 ? ["baseline"] : []), ...notes];
  const button = element("button", { type: "button", title: "Click: show or hide. Double click: this one alone." });
  const indices = members.map(({ index }) => index);
  button.addEventListener("click", () => view.toggleRuns(indices));
  button.addEventListener("dblclick", () => view.isolate(indices));
  controls[`legend ${whenGrouped} ${indices}`] = () => {
    button.hidden = whenGrouped !== null && whenGrouped !== view.grouped;
    button.setAttribute("aria-pressed", String(indices.some((index) => !view.hidden.has(index))));
    button.replaceChildren(swatch(styleOf(members[0])), name, ...words.map((word) => element("small", {}, word)));
  };
  return button;
}

function makeScaleControls() {
  const layers = runs.flatMap((run) => (run.attention ? run.attention.layers : []));
  const which = ["s", "b"].filter((name) => layers.some((layer) => layer[name]));
  const parent = document.getElementById("scale-controls");
  const names = which.map((name) => [name, name]);
  if (which.length > 1) parent.append(choice("which", "Which part of the row scale", names));
  parent.append(slider("scaleShare", "maps at", {
    toValue: (share) => share, toShare: (value) => value, words: () => view.placeText(view.scaleX()),
  }), element("div", { id: "key" }));
}

// Brings every control to what is set.
function showControls() {
  for (const show of Object.values(controls)) show();
  for (const show of headSwatches) show();
  const theme = document.getElementById("theme");
  theme.textContent = view.dark() ? "light" : "dark";
  theme.setAttribute("aria-label", `Use ${theme.textContent} colours`);
  showCaption();
}

function showZoom() {
  resetButton.disabled = !view.zoom && charts().every((chart) => !chart.zoomY);
}

function showScale() {
  if (blocks.length === 0) return;
  controls.scaleShare();
  const { middle, reach } = view.scaleRange, text = (value) => minus(value.toFixed(3));
  const bar = element("span", { className: "ramp" });
  const note = element("span", { className: "unit" }, `(pale: ${text(middle)}, as at the start)`);
  document.getElementById("key").replaceChildren(text(middle - reach), bar, text(middle + reach), note);
}

// What a reader of the picture alone needs to know.
function showCaption() {
  const sentences = [];
  const raw = view.raw ? "; faint: as logged" : "";
  if (view.train && view.smoothing === 0) sentences.push("Lines: training, as logged.");
  else if (view.train) sentences.push(`Lines: training, averaged exponentially over ${smoothing.words()}${raw}.`);
  if (view.validation) sentences.push("Markers: validation, as measured.");
  if (view.grouped && groups.length) sentences.push("Bands: one standard deviation of the seeds.");
  const thinned = runs.filter((run) => run.train.rows_per_point > 1);
  if (thinned.length) {
    const steps = thinned.map((run) => `${run.name}: ${run.train.rows_per_point} steps`).join(", ");
    sentences.push(`Long runs are thinned, a point standing for the mean, lowest and highest of several (${steps}).`);
  }
  const lost = data.comparison.runs.filter((run) => run.origin && !run.origin.known).map((run) => run.name);
  if (lost.length) sentences.push(`What the parent of ${lost.join(", ")} had done is not known: drawn from zero.`);
  const kinds = [...new Set(panels[0].shown.curves.flatMap((curve) => curve.marks.map((mark) => mark.kind)))];
  const signsShown = kinds.map((kind) => element("span", { className: "key" }, element("svg"), markNames[kind]));
  signsShown.forEach((box, i) => box.firstChild.replaceWith(svgElement(
    "svg", { class: "sign", viewBox: "-9 -9 18 18", "aria-hidden": "true" }, sign(kinds[i], "var(--muted)"))));
  const caption = document.getElementById("caption");
  caption.replaceChildren(`${sentences.join(" ")} `, ...signsShown);
}

// "#measure=steps&hidden=1,3": what differs from the defaults.
function saveAddress() {
  const parts = Object.keys(kDefaults).filter((name) => view[name] !== kDefaults[name])
    .map((name) => `${name}=${typeof view[name] === "number" ? Number(view[name].toPrecision(4)) : view[name]}`);
  if (view.hidden.size) parts.push(`hidden=${[...view.hidden].join(",")}`);
  if (view.zoom) parts.push(`zoom=${view.zoom.map((x) => Number(x.toPrecision(6))).join(",")}`);
  const address = parts.length ? `#${parts.join("&")}` : "";
  if (address === location.hash) return;
  try {
    history.replaceState(null, "", address || location.href.split("#")[0]);
  } catch {
    // A page that may not do so still works; its view cannot be bookmarked.
  }
}

function readAddress() {
  const set = new Map(new URLSearchParams(location.hash.slice(1)));
  for (const [name, value] of Object.entries(kDefaults)) {
    const text = set.get(name);
    if (text === undefined) view[name] = value;
    else if (typeof value === "boolean") view[name] = text === "true";
    else if (typeof value === "number") view[name] = Number(text) >= 0 && Number(text) <= 1 ? Number(text) : value;
    else view[name] = text;
  }
  if (!measures[view.measure]) view.measure = kDefaults.measure;
  if (!["both", "loss", "difference"].includes(view.show)) view.show = kDefaults.show;
  if (!["s", "b"].includes(view.which)) view.which = "s";
  const numbers = (name) => (set.get(name) || "").split(",").filter(Boolean).map(Number).filter(Number.isFinite);
  view.hidden = new Set(numbers("hidden").filter((index) => runs[index]));
  const [low, high] = numbers("zoom");
  view.zoom = low < high ? [low, high] : null;
}
