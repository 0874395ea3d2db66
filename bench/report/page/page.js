"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const colors = new Map(data.labels.map((one) => [one.name, one.color]));
const panels = [];
const tooltips = new Map();
const VALUES = " values";
const state = { methods: new Set(colors.keys()), sigma: "all", radius: "all", column: null, falling: true };

/* Every text goes in as text: names of classes, methods and files are data, not markup. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(label) {
  const made = element("span", { className: "swatch" });
  made.style.background = colors.get(label);
  return made;
}

function named(label) {
  return element("span", { className: "name" }, swatch(label), label);
}

function options(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value, textContent: text })));
}

/* Leaderboard */

const sigmaName = (sigma) => (sigma === "best" ? "best over σ" : `σ = ${sigma}`);

const training = [
  ["parameters", "parameters"],
  ["training_images", "training images"],
  ["training_forward_passes", "training forward passes"],
  ["training_seconds", "training s"],
  ["training_runs", "training runs"],
];

function columns() {
  const shown = data.radii.map((radius, place) => ({
    key: `r${place}`, name: `r = ${radius.text}`, cell: (row) => row.radii[place], radius: String(place),
  }));
  const all = state.radius === "all";
  return [
    { key: "label", name: "method", text: (row) => row.label },
    { key: "sigma", name: "σ", text: (row) => row.sigma },
    ...(all ? shown : shown.filter((one) => one.radius === state.radius)),
    { key: "acr", name: "ACR", cell: (row) => row.acr },
    { key: "clean", name: "clean accuracy", cell: (row) => row.clean },
    { key: "abstention", name: "abstains", cell: (row) => row.abstention, rising: true, neutral: true },
    { key: "seconds", name: "s / image", cell: (row) => row.seconds, rising: true },
    { key: "speedup", name: `× ${data.reference}`, cell: (row) => row.speedup },
    ...training.map(([key, name]) => ({ key, name, cell: (row) => row[key], rising: true, neutral: true })),
  ].filter((column) => column.text || data.rows.some((row) => column.cell(row).value !== null));
}

function visibleRows() {
  return data.rows.filter(
    (row) => state.methods.has(row.label) && (state.sigma === "all" || row.sigma === state.sigma),
  );
}

function sorted(rows, column) {
  if (!column) return rows;
  const value = (row) => (column.text ? column.text(row) : column.cell(row).value);
  const sign = state.falling ? -1 : 1;
  return [...rows].sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (column.text ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  });
}

function drawBoard() {
  const shown = columns();
  const chosen = shown.find((column) => column.key === state.column);
  const rows = sorted(visibleRows(), chosen);
  byId("board").tHead.replaceChildren(element("tr", {}, ...shown.map((column) => heading(column))));
  byId("board").tBodies[0].replaceChildren(...rows.map((row) => boardRow(row, shown, rows)));
  if (!chosen) {
    [...byId("board").tBodies[0].rows].forEach((row, place) => {
      if (place > 0 && rows[place].sigma !== rows[place - 1].sigma) row.className = "group";
    });
  }
  byId("count").textContent = `${rows.length} of ${data.rows.length} rows. Bold: the best of its σ among the rows shown. –: not measured, or unknown.`;
}

function heading(column) {
  const made = element("th", { scope: "col" });
  const button = element("button", { type: "button", textContent: column.name });
  if (column.key === state.column) made.ariaSort = state.falling ? "descending" : "ascending";
  made.dataset.key = column.key;
  button.addEventListener("click", () => {
    const first = Boolean(column.cell) && !column.rising;
    state.falling = state.column === column.key ? !state.falling : first;
    state.column = column.key;
    drawBoard();
    byId("board").querySelector(`th[data-key="${column.key}"] button`).focus();
  });
  made.append(button);
  return made;
}

function boardRow(row, shown, rows) {
  const cells = shown.map((column) => {
    if (column.key === "label") return element("th", { scope: "row" }, named(row.label));
    if (column.key === "sigma") return element("td", { textContent: row.sigma });
    return numberCell(column, row, rows);
  });
  const made = element("tr", {}, ...cells);
  made.dataset.label = row.label;
  made.dataset.sigma = row.sigma;
  return made;
}

function numberCell(column, row, rows) {
  const cell = column.cell(row);
  const made = element("td", { textContent: cell.text });
  made.dataset.key = column.key;
  if (cell.value === null) return made;
  made.dataset.value = cell.value;
  const rivals = rows.filter((one) => one.sigma === row.sigma).map((one) => column.cell(one).value);
  const known = rivals.filter((value) => value !== null);
  const best = column.rising ? Math.min(...known) : Math.max(...known);
  if (!column.neutral && known.length > 1 && cell.value === best && best > 0) made.className = "best";
  if (cell.low !== "") made.title = `[${cell.low}, ${cell.high}]`;
  if (cell.low !== "" && state.radius !== "all") made.append(element("small", { textContent: made.title }));
  if (row.sigma === "best" && column.radius) made.title = `σ = ${cell.sigma} [${cell.low}, ${cell.high}]`;
  return made;
}

/* Curves and costs: the library draws them, the page says which and in which colours. */

const ink = () => {
  const style = getComputedStyle(document.documentElement);
  return ["--ink", "--soft", "--line", "--grid"].map((name) => style.getPropertyValue(name).trim());
};

function recolor(figure) {
  const [text, soft, line, grid] = ink();
  for (const axis of [...figure.below, ...figure.left]) {
    Object.assign(axis, {
      axis_label_text_color: soft, major_label_text_color: soft, axis_line_color: line, major_tick_line_color: line,
    });
  }
  for (const rule of figure.center) if ("grid_line_color" in rule) rule.grid_line_color = grid;
  for (const renderer of figure.renderers) {
    if (renderer.glyph && renderer.glyph.type === "Text") renderer.glyph.text_color = text;
  }
}

async function draw(target, item) {
  const views = await Bokeh.embed.embed_item(item, target);
  const figure = (Array.isArray(views) ? views[0] : [...views][0]).model;
  panels.push({ target, figure });
  recolor(figure);
  return figure;
}

async function drawPlots() {
  for (const [sigma, item] of data.plots) {
    const target = element("div", { id: `plot-${sigma}` });
    const panel = element("div", { className: "plot" }, element("h3", { textContent: sigmaName(sigma) }), target);
    panel.dataset.sigma = sigma;
    byId("plots").append(panel);
    const figure = await draw(target.id, item);
    panels[panels.length - 1].panel = panel;
    const hover = figure.toolbar.tools.find((tool) => tool.name === VALUES);
    tooltips.set(hover, hover.tooltips);
  }
  if (data.cost === null) {
    byId("cost").hidden = byId("to-cost").hidden = true;
  } else {
    panels.cost = await draw("cost-plot", data.cost.plot);
  }
}

function filterPlots() {
  for (const { panel, figure } of panels) {
    if (!panel) continue;
    panel.hidden = state.sigma !== "all" && panel.dataset.sigma !== state.sigma;
    for (const renderer of figure.renderers) {
      if (renderer.name !== VALUES) renderer.visible = state.methods.has(renderer.name);
    }
    const hover = figure.toolbar.tools.find((tool) => tool.name === VALUES);
    hover.tooltips = tooltips.get(hover).filter(([label], place) => place === 0 || state.methods.has(label));
  }
  if (panels.cost) filterCost();
}

function filterCost() {
  const place = radiusPlace();
  const points = data.cost.points[place].filter((point) => state.methods.has(point.label));
  const source = panels.cost.renderers[0].data_source;
  const styled = new Map(data.cost.styles.map((style) => [style.label, style]));
  const range = panels.cost.y_range;
  const lows = points.map((point) => point.low);
  [range.start, range.end] = [Math.max(0, 10 * Math.floor((Math.min(100, ...lows) - 8) / 10)), 104];
  const value = (point, name) => (name in point ? point[name] : styled.get(point.label)[name]);
  source.data = Object.fromEntries(
    data.cost.columns.map((name) => [name, points.map((point) => value(point, name))]),
  );
  byId("cost-hint").textContent =
    `At radius ${data.radii[place].text}, which the filter above changes. σ is chosen on the certified images, so ` +
    "the accuracies are optimistic. Bars: 95% intervals over images, quartiles over repetitions.";
}

/* Paired comparisons */

const radiusPlace = () => (state.radius === "all" ? data.usual : Number(state.radius));

function drawPairs() {
  byId("paired").hidden = byId("to-paired").hidden = data.paired.length === 0;
  const radius = data.radii[radiusPlace()];
  const rows = data.paired.filter(
    (row) =>
      row.radius === radius.value && state.methods.has(row.first) && state.methods.has(row.second) &&
      ["all", row.sigma].includes(state.sigma),
  );
  byId("paired-hint").textContent =
    `Two methods on the same images, at radius ${radius.text}, which the filter above changes: difference of their ` +
    "certified accuracies in points with its paired 95% interval, and the exact McNemar test, corrected (Holm) for " +
    `all ${data.paired.length} tests of every pair, σ and radius. Bold: below 0.05. Both are over images: another ` +
    "training of the methods may differ.";
  const names = ["methods", "σ", "difference", "only the first", "only the second", "p", "p (Holm)"];
  byId("pairs").tHead.replaceChildren(
    element("tr", {}, ...names.map((name) => element("th", { scope: "col", className: "plain", textContent: name }))),
  );
  byId("pairs").tBodies[0].replaceChildren(...rows.map(pairRow));
  if (rows.length === 0) {
    const text = "No comparison at this choice: two methods and a radius within reach of σ are needed.";
    byId("pairs").tBodies[0].append(element("tr", {}, element("td", { colSpan: names.length, textContent: text })));
  }
}

function pairRow(row) {
  const className = row.is_significant ? "best" : "";
  const interval = `[${row.difference.low}, ${row.difference.high}]`;
  const difference = element("td", { className, textContent: `${row.difference.text} ` });
  difference.dataset.value = row.difference.value;
  difference.append(element("span", { className: "interval", textContent: interval }));
  return element(
    "tr", {},
    element("th", { scope: "row" }, named(row.first), " against ", named(row.second)),
    element("td", { textContent: row.sigma }),
    difference,
    ...[row.only_first, row.only_second, row.p.text].map((text) => element("td", { textContent: text })),
    element("td", { className, textContent: row.p_holm.text }),
  );
}

/* Image by image */

const entriesAt = (sigma) => data.entries.filter((entry) => entry.sigma === sigma && state.methods.has(entry.label));
const isCorrect = (image, record) => record !== undefined && record[0] === image.label && record[0] !== -1;
const className = (label) => (label === -1 ? "abstains" : (data.classes[label] ?? `class ${label}`));

function chosenImages() {
  const entries = entriesAt(byId("image-sigma").value);
  const verdicts = (image) => entries.map((entry) => isCorrect(image, entry.records[image.index]));
  const kept = {
    all: () => true,
    disagree: (image) => new Set(verdicts(image)).size > 1,
    wrong: (image) => verdicts(image).includes(false),
    none: (image) => !verdicts(image).includes(true),
  }[byId("subset").value];
  return data.images.filter(kept);
}

function drawImage(place) {
  const images = chosenImages();
  const slider = byId("image");
  slider.max = Math.max(0, images.length - 1);
  slider.value = Math.min(place ?? Number(slider.value), images.length - 1);
  const image = images[Number(slider.value)];
  byId("previous").disabled = !image || Number(slider.value) === 0;
  byId("next").disabled = !image || Number(slider.value) === images.length - 1;
  byId("position").textContent = image
    ? `Image ${image.index} of the test split, ${Number(slider.value) + 1} of ${images.length} here; ` +
      `its class: ${className(image.label)}`
    : "No image is like that.";
  for (const part of ["clean", "noisy", "certificates"]) byId(part).hidden = !image;
  if (image) drawCertificates(image);
}

function drawCertificates(image) {
  const sigma = byId("image-sigma").value;
  picture("clean", data.pictures.clean[image.index], `image ${image.index}`, "as it is");
  picture("noisy", data.pictures.noisy[`${image.index}/${sigma}`], `image ${image.index} with noise`, `with noise, σ = ${sigma}`);
  const entries = entriesAt(sigma);
  const most = Math.max(...entries.map((entry) => Math.max(...Object.values(entry.records).map((record) => record[1]))));
  const names = ["method", "class", "certified radius", "estimation counts", "selection counts"];
  byId("certificates").tHead.replaceChildren(
    element("tr", {}, ...names.map((name, place) =>
      element("th", { scope: "col", className: `plain ${place === 2 ? "" : "left"}`, textContent: name }))),
  );
  byId("certificates").tBodies[0].replaceChildren(
    ...entries.map((entry) => certificateRow(image, entry, entry.records[image.index], most)),
  );
}

function certificateRow(image, entry, record, most) {
  const head = element("th", { scope: "row" }, named(entry.label));
  if (record === undefined) return element("tr", {}, head, element("td", { className: "left", textContent: "not certified yet" }));
  const [predict, radius, text, estimation, selection] = record;
  const correct = isCorrect(image, record);
  const mark = predict === -1 ? "" : correct ? "✓ " : "✗ ";
  const verdict = element("td", { className: `left ${correct ? "correct" : "wrong"}`, textContent: mark + className(predict) });
  const bar = element("i");
  bar.style.width = `${most > 0 ? (100 * radius) / most : 0}%`;
  bar.style.background = colors.get(entry.label);
  const size = element("td", { textContent: text }, element("span", { className: "meter" }, bar));
  size.dataset.value = radius;
  return element("tr", {}, head, verdict, size, counts(estimation), counts(selection));
}

function counts(pairs) {
  const shown = pairs.slice(0, 3).map(([label, count]) => `${className(label)}: ${count}`);
  const rest = pairs.length > 3 ? `, ${pairs.length - 3} more` : "";
  return element("td", { className: "left", textContent: pairs.length ? shown.join(", ") + rest : "–" });
}

function picture(id, source, alt, caption) {
  const image = byId(id);
  image.alt = source ? alt : "";
  if (source) image.src = source;
  else image.removeAttribute("src");
  byId(`${id}-caption`).textContent = source ? caption : `${caption}: no picture`;
}

/* The rest */

function provenance(run) {
  const facts = run.facts.flatMap(([name, text]) => [element("dt", { textContent: name }), element("dd", { textContent: text })]);
  return [element("h3", { textContent: run.name }), element("dl", {}, ...facts)];
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = dark ? "Light" : "Dark";
  byId("theme").ariaPressed = String(dark);
  for (const { figure } of panels) recolor(figure);
}

function update() {
  drawBoard();
  drawPairs();
  filterPlots();
  drawImage();
}

function prepare() {
  byId("title").textContent = data.title;
  byId("summary").textContent = data.summary;
  byId("notes").replaceChildren(...data.notes.map((note) => element("li", { textContent: note })));
  byId("picture-note").textContent = data.pictures.note;
  byId("provenance").replaceChildren(...data.runs.flatMap(provenance));
  const sigmas = [...new Set(data.rows.map((row) => row.sigma))];
  options(byId("sigma"), [["all", "all"], ...sigmas.map((sigma) => [sigma, sigma === "best" ? "best over σ" : sigma])]);
  options(byId("radius"), [["all", "all"], ...data.radii.map((radius, place) => [String(place), radius.text])]);
  options(byId("image-sigma"), data.sigmas.map((sigma) => [sigma, sigma]));
  options(byId("subset"), [
    ["all", "all images"], ["disagree", "images on which the methods differ"],
    ["wrong", "images that a method gets wrong"], ["none", "images that no method gets right"],
  ]);
  byId("image-sigma").value = data.sigmas[data.sigmas.length - 1];
  byId("subset").value = data.labels.length > 1 ? "disagree" : "all";
  for (const { name } of data.labels) {
    const box = element("input", { type: "checkbox", checked: true, value: name });
    box.addEventListener("change", () => {
      if (box.checked) state.methods.add(name);
      else state.methods.delete(name);
      update();
    });
    byId("methods").append(element("label", {}, box, swatch(name), name));
  }
}

function listen() {
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["sigma", "radius"]) {
    byId(name).addEventListener("change", (event) => {
      state[name] = event.target.value;
      if (name === "sigma" && data.sigmas.includes(state.sigma)) byId("image-sigma").value = state.sigma;
      update();
    });
  }
  for (const name of ["subset", "image-sigma"]) byId(name).addEventListener("change", () => drawImage(0));
  byId("image").addEventListener("input", () => drawImage());
  byId("previous").addEventListener("click", () => drawImage(Number(byId("image").value) - 1));
  byId("next").addEventListener("click", () => drawImage(Number(byId("image").value) + 1));
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
}

prepare();
listen();
setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
drawPlots().then(() => {
  update();
  document.documentElement.dataset.ready = "true";
});
