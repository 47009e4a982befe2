// Axes: scales, ticks, and numbers as people read them.

// From values to pixels and back. A value without a place (not positive, on a logarithmic axis) is NaN.
function makeScale(min, max, log, from, to) {
  const forward = log ? (value) => (value > 0 ? Math.log10(value) : NaN) : (value) => value;
  const low = forward(min), factor = (to - from) / (forward(max) - low);
  return {
    min, max, log,
    pixel: (value) => from + (forward(value) - low) * factor,
    value: (pixel) => {
      const at = low + (pixel - from) / factor;
      return log ? 10 ** at : at;
    },
  };
}

// 1, 2 or 5 times a power of ten, so that about `count` of them fill the extent.
function niceStep(extent, count) {
  const rough = extent / count, power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
}

function linearTicks(min, max, count) {
  const step = niceStep(max - min, count), ticks = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max + step * 1e-9; i++) ticks.push(i * step);
  return { ticks, step };
}

// Powers of ten, with 2 and 5 between them where there is room; over less than a decade a linear axis's.
function logTicks(min, max, count) {
  const decades = Math.log10(max / min);
  if (decades < 1) return linearTicks(min, max, count);
  const factors = decades < count / 3 ? [1, 2, 5] : [1], every = Math.max(1, Math.ceil(decades / count));
  const ticks = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max) + 1e-9; power += every) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= min * (1 - 1e-9) && tick <= max * (1 + 1e-9)) ticks.push(tick);
    }
  }
  return { ticks, step: null };
}

function ticksOf(scale, count) {
  return scale.log ? logTicks(scale.min, scale.max, count) : linearTicks(scale.min, scale.max, count);
}

const countSuffixes = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
const flopSuffixes = [
  [1e24, "Y"], [1e21, "Z"], [1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"],
];
const timeUnits = [[86400, " d"], [3600, " h"], [60, " min"], [1, " s"]];

function suffixesOf(measure) {
  return { flops: flopSuffixes, seconds: timeUnits }[measure] || countSuffixes;
}

// The decimals that tell ticks apart.
function decimalsOf(step) {
  return Math.min(9, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

// The ticks of an x axis with their texts. All share one unit on a linear axis.
function labelledTicks(scale, measure, count) {
  const suffixes = suffixesOf(measure);
  if (scale.log) {
    const { ticks } = logTicks(scale.min, scale.max, count);
    return ticks.map((tick) => [tick, measure === "seconds" ? duration(tick) : shortCount(tick, suffixes)]);
  }
  const reach = Math.max(Math.abs(scale.min), Math.abs(scale.max));
  // A unit that would leave less than two of it on the axis is too large.
  const [unit, suffix] = suffixes.find(([size]) => reach >= 2 * size) || [1, measure === "seconds" ? " s" : ""];
  const { ticks, step } = linearTicks(scale.min / unit, scale.max / unit, count);
  return ticks.map((tick) => [tick * unit, tick === 0 ? "0" : tick.toFixed(decimalsOf(step)) + suffix]);
}

// Three significant digits and a suffix.
function shortCount(value, suffixes = countSuffixes) {
  const [unit, suffix] = suffixes.find(([size]) => Math.abs(value) >= 0.9995 * size) || [1, ""];
  return trimmed((value / unit).toPrecision(3)) + suffix;
}

function trimmed(digits) {
  return digits.includes(".") && !digits.includes("e") ? digits.replace(/\.?0+$/, "") : digits;
}

function withCommas(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

// At most two units: "0.3 s", "42 s", "3 min 05 s", "2 h 14 min", "3 d 04 h".
function duration(seconds) {
  if (seconds < 10) return `${trimmed(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds), two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  const hours = Math.round(seconds / 3600);
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

// A place, or a distance, on the x axis in words.
function placeText(value, measure) {
  if (measure === "steps") return value < 10 ? `${trimmed(value.toFixed(1))} steps` : `${withCommas(value)} steps`;
  if (measure === "tokens") return `${shortCount(value)} tokens`;
  return measure === "seconds" ? duration(value) : `${shortCount(value, flopSuffixes)}FLOP`;
}

const minus = (text) => text.replace("-", "−");
const lossText = (value) => minus(value.toFixed(4));
const signedText = (value) => (value > 0 ? "+" : "") + lossText(value);
const shortText = (value) => minus(trimmed(value.toPrecision(3)));
