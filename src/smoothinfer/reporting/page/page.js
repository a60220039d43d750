"use strict";
// The records are in #data; curves and tables are drawn from them, with no library and no network.
const held = JSON.parse(document.getElementById("data").textContent) ?? { names: [], rows: [] };
const measures = ["clean", "attacked"];
const figure = (four) => four && { value: four[0], low: four[1], high: four[2], std: four[3] };
const records = held.rows.map((row) => Object.fromEntries(held.names.map((name, at) =>
  [name, measures.includes(name) ? figure(row[at]) : row[at]])));
const colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A5C00", "#56B4E9", "#000000"];
const dashes = ["", "7 3", "2 3", "9 3 2 3"];
const columns = Object.keys(records[0] || {}).filter((name) => !measures.includes(name));
const values = (name, rows = records) => [...new Set(rows.map((row) => row[name]))].sort(order);
const axes = columns.filter((name) => {
  const held = values(name).filter((value) => value !== null);
  return name !== "seeds" && held.length > 1 && held.every((value) => typeof value === "number");
});
// Where each model stands in one folder only, its name says enough.
const told = columns.includes("model") && values("model").every((model) =>
  new Set(records.filter((row) => row.model === model).map((row) => row.source)).size === 1);
const varying = columns.filter((name) => values(name).length > 1 && !(name === "source" && told));

function order(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function said(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const level = Math.round(255 * value);
  return String(value).length > 8 && level / 255 === value ? `${level}/255` : String(Math.round(value * 1e6) / 1e6);
}

function element(tag, attributes = {}, text = "") {
  const svg = ["svg", "g", "line", "path", "circle", "text", "title"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== "") made.textContent = text;
  return made;
}

// Tables: a button in each head sorts by its column.
function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = element("button", { type: "button" }, head.textContent);
    head.textContent = "";
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const text = row.cells[place].dataset.value ?? row.cells[place].textContent;
        const number = Number.parseFloat(text); // of "30.1 (24.8-36.0)" too
        return Number.isNaN(number) ? text : number;
      };
      const rows = [...body.rows].sort((a, b) => order(key(a), key(b)) * (up ? 1 : -1));
      body.append(...rows);
    });
  });
}

// Curves: an axis, what tells the curves apart, and one value of everything else.
function chart(holder) {
  const controls = element("div", { class: "controls" });
  const picture = element("div");
  const choices = {};
  const choose = (name, label, options, start) => {
    const box = element("label", {}, label);
    const select = element("select", { "aria-label": label, name });
    for (const option of options) select.append(element("option", { value: said(option) }, said(option)));
    select.value = said(start);
    select.addEventListener("change", () => draw(name));
    box.append(select);
    controls.append(box);
    choices[name] = select;
  };
  const axis = axes.includes("samples") ? "samples" : axes[0];
  // What is shown first: where the curve has the most points.
  const reach = new Map();
  for (const row of records) reach.set(row.source, (reach.get(row.source) ?? new Set()).add(row[axis]));
  const first = records.reduce((best, row) => (reach.get(row.source).size > reach.get(best.source).size ? row : best));
  const start = (name) => (name === "samples" ? values(name).at(-1) : first[name]);
  const rivals = (name) => new Set(records.filter((row) => varying.every((other) =>
    other === axis || other === name || said(row[other]) === said(start(other)))).map((row) => row[name])).size;
  choose("axis", "along", axes, axis);
  const series = varying.filter((name) => name !== axis);
  choose("series", "a curve for each", series.length ? series : [axis],
    ["model", "rule", ...series].find((name) => series.includes(name) && rivals(name) > 1) ?? series[0] ?? axis);
  choose("measure", "accuracy", measures.filter((m) => records.some((row) => row[m])), "attacked");
  if (!choices.measure.value) choices.measure.selectedIndex = 0;
  for (const name of varying) choose("fix-" + name, name, values(name), start(name));
  holder.append(controls, picture);

  // Not every combination was measured: what was just chosen stays, the rest follows a record.
  function follow(name, fits) {
    const given = choices[name] && name.startsWith("fix-") ? name.slice(4) : null;
    const match = records.find((row) => fits(row)
      && (given === null || said(row[given]) === choices[name].value)) ?? records.find(fits);
    if (!match) return;
    for (const other of varying) choices["fix-" + other].value = said(match[other]);
  }

  function draw(name = "") {
    const along = choices.axis.value, by = choices.series.value, measure = choices.measure.value;
    const fixed = varying.filter((name) => name !== along && name !== by);
    for (const name of varying) {
      choices["fix-" + name].parentElement.hidden = !fixed.includes(name);
    }
    const measured = (row) => row[measure] && typeof row[along] === "number";
    const choose = () => records.filter((row) => measured(row)
      && fixed.every((each) => said(row[each]) === choices["fix-" + each].value));
    if (!choose().length) follow(name, measured);
    const shown = choose();
    const curves = values(by, shown).map((value) => ({ name: said(value),
      points: shown.filter((row) => row[by] === value).sort((a, b) => order(a[along], b[along])) }));
    const wide = Math.max(320, Math.min(860, holder.clientWidth || 860));
    const open = picture.querySelector("details")?.open;
    const numbers = tableOf(curves, along, by, measure);
    numbers.open = Boolean(open);
    picture.replaceChildren(plot(curves, along, by, measure, wide), numbers);
  }
  draw();
  window.addEventListener("resize", () => draw());
}

function plot(curves, along, by, measure, wide) {
  // On a narrow screen, or with long names, the legend stands below, and letters keep their size.
  const narrow = wide < 600, below = narrow || curves.some((curve) => curve.name.length > 22);
  const legend = below ? 20 * curves.length + 10 : 0, longest = Math.floor((wide - 100) / 7);
  const left = 60, right = below ? 16 : 190, top = 16, bottom = 50 + legend;
  const high = (narrow ? 300 : 420) + legend;
  const points = curves.flatMap((curve) => curve.points);
  const svg = element("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img",
    "aria-label": `${measure} accuracy against ${along}, a curve for each ${by}; the table below tells the same` });
  if (!points.length) { svg.append(element("text", { x: left, y: 60 }, "nothing was measured there")); return svg; }
  const logs = along === "samples";
  const put = (value) => (logs ? Math.log2(value) : value);
  const xs = points.map((row) => put(row[along]));
  const low = Math.min(...points.map((row) => row[measure].low));
  const up = Math.max(...points.map((row) => row[measure].high));
  const step = [1, 2, 5, 10, 20].find((size) => (up - low) / size <= 8) || 25;
  const y0 = Math.max(0, Math.floor(low / step) * step), y1 = Math.min(100, Math.ceil(up / step) * step);
  const x0 = Math.min(...xs), x1 = Math.max(...xs);
  const x = (value) => left + (wide - left - right) * (x1 === x0 ? 0.5 : (put(value) - x0) / (x1 - x0));
  const y = (value) => high - bottom - (high - top - bottom) * (y1 === y0 ? 0.5 : (value - y0) / (y1 - y0));
  for (let tick = y0; tick <= y1 + 1e-9; tick += step) {
    svg.append(element("line", { x1: left, x2: wide - right, y1: y(tick), y2: y(tick), stroke: "#ddd" }));
    svg.append(element("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  const ticks = [...new Set(points.map((row) => row[along]))].sort(order);
  const skip = Math.ceil(ticks.length / (narrow ? 6 : 12));
  ticks.filter((_, place) => place % skip === 0).forEach((tick) => {
    svg.append(element("text", { x: x(tick), y: high - bottom + 20, "text-anchor": "middle" }, said(tick)));
  });
  svg.append(element("text", { x: (left + wide - right) / 2, y: high - bottom + 42,
    "text-anchor": "middle" }, along));
  const title = element("text", { transform: `translate(16 ${(high - bottom + top) / 2}) rotate(-90)`,
    "text-anchor": "middle" }, `${measure} accuracy, %`);
  svg.append(title);
  curves.forEach((curve, place) => {
    const colour = colours[place % colours.length];
    const dash = dashes[place % dashes.length];  // not by colour alone
    const group = element("g", { stroke: colour, fill: colour });
    group.append(element("path", { fill: "none", "stroke-width": 2, "stroke-dasharray": dash,
      d: curve.points.map((row, at) => `${at ? "L" : "M"}${x(row[along])} ${y(row[measure].value)}`).join("") }));
    for (const row of curve.points) {
      const at = x(row[along]), found = row[measure];
      group.append(element("line", { x1: at, x2: at, y1: y(found.low), y2: y(found.high), "stroke-opacity": 0.6 }));
      const dot = element("circle", { cx: at, cy: y(found.value), r: 4 });
      dot.append(element("title", {}, `${curve.name}, ${along} ${said(row[along])}: ${percent(found)}`));
      group.append(dot);
    }
    const line = (below ? high - legend + 10 : top + 14) + 20 * place;
    const from = below ? left : wide - right + 12;
    group.append(element("line", { x1: from, x2: from + 24, y1: line, y2: line,
      "stroke-width": 2, "stroke-dasharray": dash }));
    const name = curve.name.length > longest ? `${curve.name.slice(0, longest - 1)}…` : curve.name;
    group.append(element("text", { x: from + 30, y: line + 4, stroke: "none" }, name));
    svg.append(group);
  });
  return svg;
}

function percent(found) {
  const spread = found.std ? ` ± ${found.std.toFixed(1)}` : "";
  return `${found.value.toFixed(1)}${spread} (${found.low.toFixed(1)}–${found.high.toFixed(1)})`;
}

function tableOf(curves, along, by, measure) {
  const holder = element("details");
  holder.append(element("summary", {}, "the numbers of this picture"));
  const scroll = element("div", { class: "scroll" });
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const name of [along, ...curves.map((curve) => `${by} ${curve.name}`)]) {
    head.append(element("th", { scope: "col" }, name));
  }
  const body = table.createTBody();
  const places = [...new Set(curves.flatMap((curve) => curve.points.map((row) => row[along])))].sort(order);
  for (const place of places) {
    const row = body.insertRow();
    row.insertCell().textContent = said(place);
    for (const curve of curves) {
      const found = curve.points.find((each) => each[along] === place);
      row.insertCell().textContent = found ? percent(found[measure]) : "";
    }
  }
  scroll.append(table);
  holder.append(scroll);
  return holder;
}

document.querySelectorAll("table.sortable").forEach(sortable);
const holder = document.getElementById("curves");
if (holder && axes.length) chart(holder);
document.body.dataset.ready = "yes";
