// Elements of the page, its two tables, and figures from elsewhere. Text from runs only ever becomes the text of a node.

function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

function announce(text) {
  document.getElementById("announcer").textContent = text;
}

function svgElement(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A short piece of a curve as it is drawn, with its marker.
function swatch({ colour, dash = [], marker }) {
  const stroke = { stroke: colour, "stroke-width": 2, "stroke-dasharray": dash.join(" ") };
  const line = svgElement("path", { d: "M-14 0H14", ...stroke });
  return svgElement("svg", { class: "swatch", viewBox: "-15 -7 30 14", "aria-hidden": "true" }, line,
                    ...(marker ? [sign(marker, colour)] : []));
}

function sign(name, colour) {
  return svgElement("path", { d: signs[name], stroke: colour, "stroke-width": 1.6, fill: "var(--ground)" });
}

// A table as the console prints it: a label and a cell for every column, which are runs or groups of runs.
function cellTable({ header, rows }, { code = false } = {}) {
  const heads = header.map((text, i) => element("th", { scope: "col", title: text }, headSwatch(header, i), text));
  const lines = rows.map(({ key, label, cells }) => element(
    "tr", { "data-key": key }, element("th", { scope: "row" }, label),
    ...cells.map(({ text, missing }) => element("td", { className: missing ? "missing" : code ? "code" : "" }, text))));
  const head = element("thead", {}, element("tr", {}, element("td"), ...heads));
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Table" },
                 element("table", { className: "cells" }, head, element("tbody", {}, ...lines)));
}

// Drawn anew with every change of colours.
function headSwatch(header, i) {
  const perColumn = header.length === data.columns.length, box = element("span");
  const run = runs[perColumn ? data.columns[i].members[0] : i];
  headSwatches.push(() => box.replaceChildren(swatch(styleOf(run))));
  return box;
}

const headSwatches = [];

function fillTables() {
  const config = document.getElementById("config"), results = document.getElementById("results");
  const alike = runs.length > 1 ? "The configs are equal." : "There is nothing to compare one run with.";
  config.replaceChildren(data.config.rows.length ? cellTable(data.config, { code: true })
                                                 : element("p", { className: "note" }, alike));
  const problems = runs.flatMap((run) => run.problems);
  const notes = [...data.notes, ...problems].map((text) => element("p", { className: "note" }, text));
  results.replaceChildren(cellTable(data.results));
  document.getElementById("notes").replaceChildren(...notes);
}

// As images: in those a browser neither runs scripts nor loads anything, whoever has made them.
function fillFigures() {
  const pictures = data.figures.map(({ title, svg }) => element(
    "figure", {}, element("img", { src: `data:image/svg+xml;base64,${svg}`, alt: title })));
  document.getElementById("pictures").replaceChildren(...pictures);
  document.getElementById("figures").hidden = pictures.length === 0;
}
