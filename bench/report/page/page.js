"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const colors = new Map(data.labels.map((one) => [one.name, one.color]));
const panels = [];
const tooltips = new Map();
const VALUES = " values";
const hasBest = data.rows.some((row) => row.sigma === "best" && !row.is_published);
const START = { sigma: hasBest && data.sigmas.length > 1 ? "best" : "all", radius: "all" };
const state = { methods: new Set(colors.keys()), ...START, column: null, falling: true, search: "", hidden: new Set() };
const arxiv = new Map(data.labels.map((one) => [one.name, one.arxiv]));

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

function paper(label) {
  const id = arxiv.get(label);
  if (!id) return named(label);
  const link = element("a", { href: `https://arxiv.org/abs/${id}`, rel: "noreferrer", textContent: label });
  return element("span", { className: "name" }, swatch(label), link);
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
    { key: "rank", name: "#", rank: true },
    { key: "label", name: "method", text: (row) => row.label },
    { key: "sigma", name: "σ", text: (row) => row.sigma },
    ...(all ? shown : shown.filter((one) => one.radius === state.radius)),
    { key: "acr", name: "ACR", cell: (row) => carried(row).acr },
    { key: "clean", name: "clean accuracy", cell: (row) => carried(row).clean },
    { key: "abstention", name: "abstains", cell: (row) => carried(row).abstention, rising: true, neutral: true },
    { key: "seconds", name: "s / image", cell: (row) => nearest(row, "seconds"), rising: true },
    { key: "speedup", name: `× ${data.reference}`, cell: (row) => nearest(row, "speedup") },
    ...training.map(([key, name]) => ({ key, name, cell: (row) => carried(row)[key] ?? row[key], rising: true, neutral: true })),
  ].filter((column) => !column.cell || data.rows.some((row) => column.cell(row)?.value != null));
}

/* A row of the best over σ carries what belongs to the σ that is best at the radius it is ranked by. */
function carried(row) {
  if (row.sigma !== "best" || row.is_published) return row;
  const { sigma } = row.radii[radiusPlace()];
  return data.rows.find((one) => one.label === row.label && one.sigma === sigma && !one.is_published) ?? row;
}

/* Cost is measured at few σ; the nearest measured one stands in. */
function nearest(row, key) {
  const own = carried(row);
  if (own[key].value !== null || row.is_published) return own[key];
  const measured = data.rows.filter((one) => one.label === row.label && one[key].value !== null);
  const gap = (one) => Math.abs(Math.log(Number(one.sigma) / Number(own.sigma)));
  return measured.sort((first, second) => gap(first) - gap(second))[0]?.[key] ?? own[key];
}

const shownColumns = () => columns().filter((column) => !state.hidden.has(column.key));

function visibleRows() {
  return data.rows.filter(
    (row) =>
      (row.is_published ? byId("published").checked : state.methods.has(row.label)) &&
      (state.sigma === "all" || row.sigma === state.sigma) &&
      row.label.toLowerCase().includes(state.search.toLowerCase()),
  );
}

/* Until a column is chosen, rows of the best over σ are ranked by the radius, others stand by σ and method. */
function sorted(rows, column) {
  if (!column && state.sigma === "all") return rows;
  if (!column) column = { cell: (row) => row.radii[radiusPlace()] };
  const value = (row) => (column.text ? column.text(row) : column.cell(row).value);
  const sign = state.falling ? -1 : 1;
  return [...rows].sort((first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (column.text ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  });
}

function drawBoard() {
  const shown = shownColumns();
  const chosen = shown.find((column) => column.key === state.column);
  const rows = sorted(visibleRows(), chosen);
  byId("board").tHead.replaceChildren(element("tr", {}, ...shown.map((column) => heading(column))));
  byId("board").tBodies[0].replaceChildren(...rows.map((row) => boardRow(row, shown, rows)));
  if (!chosen && state.sigma === "all") {
    [...byId("board").tBodies[0].rows].forEach((row, place) => {
      if (place > 0 && rows[place].sigma !== rows[place - 1].sigma) row.className = "group";
    });
  }
  const ranked = chosen || state.sigma !== "all";
  const by = chosen ? chosen.name : `r = ${data.radii[radiusPlace()].text}`;
  byId("count").textContent =
    `${rows.length} of ${data.rows.length} rows${ranked ? `, ranked by ${by}` : ""}. Bold: accuracies not significantly ` +
    "below the highest of their σ (see below), else the best of its σ among the rows shown. Small: 95% intervals, " +
    "quartiles of costs. –: beyond R_max, not measured, or unknown.";
}

function heading(column) {
  const made = element("th", { scope: "col" });
  if (column.rank) return element("th", { scope: "col", className: "plain", textContent: column.name });
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
    if (column.key === "label") return element("th", { scope: "row" }, row.is_published ? row.label : paper(row.label));
    if (column.rank) return element("td", { className: "rank", textContent: rank(row, rows) });
    if (column.key === "sigma") return element("td", { textContent: row.sigma });
    return numberCell(column, row, rows);
  });
  const made = element("tr", {}, ...cells);
  made.dataset.label = row.label;
  if (row.is_published) made.classList.add("published");
  made.dataset.sigma = row.sigma;
  return made;
}

/* Published rows are not ranked: they rest on other images, and on another protocol. */
function rank(row, rows) {
  if (row.is_published || (state.sigma === "all" && !state.column)) return "";
  return String(rows.filter((one) => !one.is_published).indexOf(row) + 1);
}

function numberCell(column, row, rows) {
  const cell = column.cell(row);
  const made = element("td", { textContent: cell.text });
  made.dataset.key = column.key;
  if (cell.value === null) return made;
  made.dataset.value = cell.value;
  const rivals = rows.filter((one) => one.sigma === row.sigma && !one.is_published).map((one) => column.cell(one).value);
  const known = rivals.filter((value) => value !== null);
  const best = column.rising ? Math.min(...known) : Math.max(...known);
  const isCarried = row.sigma === "best" && ["acr", "clean", "abstention"].includes(column.key);
  const leads = isCarried ? false : column.radius ? cell.leads : known.length > 1 && cell.value === best && best > 0;
  if (!column.neutral && !row.is_published && leads) made.className = "best";
  if (cell.low !== "") made.append(element("small", { textContent: `[${cell.low}, ${cell.high}]` }));
  if (row.sigma === "best" && column.radius && cell.low !== "") {
    made.append(element("small", { textContent: `σ = ${cell.sigma}` }));
  }
  if (isCarried) made.append(element("small", { textContent: `σ = ${carried(row).sigma}` }));
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
    const target = element("div", { id: `plot-${sigma}`, role: "img", ariaLabel: `Certified accuracy against radius, ${sigmaName(sigma)}; values below` });
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

/* Values at one radius, for touch and keyboard: those that the figures are drawn from. */

function drawReadout() {
  const radius = Number(byId("reading").value);
  const names = ["method", "σ", `accuracy (%) at r = ${radius.toFixed(2)}`];
  byId("reading-at").textContent = radius.toFixed(2);
  const rows = panels.filter((one) => one.panel && !one.panel.hidden).flatMap(({ panel, figure }) => {
    const source = figure.renderers.find((one) => one.name === VALUES).data_source;
    const column = (name) => source.get_column(name);
    const radii = column("radius");
    const place = radii.findIndex((one) => one >= radius);
    const labels = data.labels.map((one) => one.name).filter((label) => figure.renderers.some((one) => one.name === label));
    return labels.filter((label) => state.methods.has(label)).map((label) => {
      const number = labels.indexOf(label);
      const [text, interval = ""] = place < 0 ? ["–"] : column(`text${number}`)[place].split("%");
      return element("tr", {}, element("th", { scope: "row" }, named(label)),
        element("td", { textContent: panel.dataset.sigma }),
        element("td", { textContent: text }, element("span", { className: "interval", textContent: interval })));
    });
  });
  byId("readout").tHead.replaceChildren(element("tr", {}, ...names.map((name) => element("th", { scope: "col", className: "plain", textContent: name }))));
  byId("readout").tBodies[0].replaceChildren(...rows);
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
      ["all", "best", row.sigma].includes(state.sigma),
  );
  byId("paired-hint").textContent =
    `Two methods on the same images, at radius ${radius.text}, which the filter above changes: difference of their ` +
    "certified accuracies in points with its paired 95% interval, and the exact McNemar test, corrected (Holm) for " +
    `all ${data.paired.length} tests of every pair, σ and radius. Bold: below 0.05. Neither accounts for ` +
    "variance between training runs.";
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
    : "No matching images.";
  for (const part of ["clean", "noisy", "certificates"]) byId(part).hidden = !image;
  if (image) drawCertificates(image);
}

function drawCertificates(image) {
  const sigma = byId("image-sigma").value;
  picture("clean", data.pictures.clean[image.index], `image ${image.index}`, "clean");
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
  byId("theme").ariaPressed = String(dark);
  for (const { figure } of panels) recolor(figure);
}

/* The choice is in the address, so that it can be sent round. */

function writeAddress() {
  const chosen = new URLSearchParams();
  if (state.sigma !== START.sigma) chosen.set("sigma", state.sigma);
  if (state.radius !== "all") chosen.set("r", data.radii[Number(state.radius)].text);
  if (state.search) chosen.set("q", state.search);
  const off = [...colors.keys()].filter((label) => !state.methods.has(label));
  if (off.length) chosen.set("without", off.join("|"));
  const text = String(chosen);
  const current = location.hash.slice(1);
  if (text !== current && (text || current.includes("="))) history.replaceState(null, "", text ? `#${text}` : "#");
}

function readAddress() {
  if (!location.hash.includes("=")) return;
  const chosen = new URLSearchParams(location.hash.slice(1));
  const sigma = chosen.get("sigma");
  if (sigma !== null && [...byId("sigma").options].some((one) => one.value === sigma)) state.sigma = sigma;
  const place = data.radii.findIndex((radius) => Number(radius.text) === Number(chosen.get("r") ?? NaN));
  if (place >= 0) state.radius = String(place);
  state.search = chosen.get("q") ?? "";
  const off = new Set((chosen.get("without") ?? "").split("|"));
  state.methods = new Set([...colors.keys()].filter((label) => !off.has(label)));
  showState();
}

function showState() {
  byId("sigma").value = state.sigma;
  byId("radius").value = state.radius;
  byId("search").value = state.search;
  for (const box of byId("methods").querySelectorAll("input")) box.checked = state.methods.has(box.value);
}

/* Sections stop below the bar of filters, wherever it sticks. */
function keepSectionsClear() {
  const bar = byId("filters");
  const height = getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  document.documentElement.style.scrollPaddingTop = `${height + 12}px`;
}

function offerDownloads() {
  byId("downloads").replaceChildren(...Object.entries(data.downloads).map(([name, text]) => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => {
      const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    return button;
  }));
}

function offerColumns() {
  byId("columns").replaceChildren(...columns().filter((column) => column.key !== "label").map((column) => {
    const box = element("input", { type: "checkbox", checked: true, value: column.key });
    box.addEventListener("change", () => {
      if (box.checked) state.hidden.delete(column.key);
      else state.hidden.add(column.key);
      drawBoard();
    });
    return element("label", {}, box, column.name);
  }));
}

function update() {
  writeAddress();
  drawBoard();
  drawPairs();
  filterPlots();
  drawReadout();
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
  byId("sigma").value = state.sigma;
  byId("published-choice").hidden = !data.rows.some((row) => row.is_published);
  byId("reading").max = Math.ceil(100 * Math.max(...data.entries.flatMap((entry) => Object.values(entry.records).map((record) => record[1])), 0.01)) / 100;
  byId("reading").value = data.radii[radiusPlace()].value;
  offerDownloads();
  offerColumns();
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
  byId("search").addEventListener("input", (event) => {
    state.search = event.target.value;
    update();
  });
  byId("published").addEventListener("change", drawBoard);
  byId("reading").addEventListener("input", drawReadout);
  addEventListener("resize", keepSectionsClear);
  addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    readAddress();
    update();
  });
  byId("image").addEventListener("input", () => drawImage());
  byId("previous").addEventListener("click", () => drawImage(Number(byId("image").value) - 1));
  byId("next").addEventListener("click", () => drawImage(Number(byId("image").value) + 1));
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
}

prepare();
readAddress();
listen();
keepSectionsClear();
setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
drawPlots().then(() => {
  update();
  document.documentElement.dataset.ready = "true";
});
