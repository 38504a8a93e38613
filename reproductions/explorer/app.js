// The page: which model, which z, which image; everything on show follows from these.

const find = (id) => document.getElementById(id);
const modules = JSON.parse(find("modules").textContent);
const texts = JSON.parse(find("texts").textContent);
const state = {
  language: (navigator.language || "en").startsWith("zh") ? "zh" : "en",
  module: null, mode: "both", digit: 4, image: null, dims: [0, 1], draws: [], eps: null,
  visible: new Set(Array(10).keys()), grid: false, theme: 0, speed: [],
};
const loaded = {}; // models and codes, by module and run
const images = {}; // the twenty test images of a data set
const labels = {}; // of the test set
let benches = []; // of the module on show: the document's, and its twin's

// --- Words and numbers ---

// A text of the module on show, or one of all modules.
const text = (key, values = {}) => {
  const own = texts[state.language];
  return (own[`${state.module}.${key}`] ?? own[key] ?? "").replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
};
const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const percent = (share) => `${(100 * share).toFixed(share > 0.995 && share < 1 ? 1 : 0)} %`;
const vector = (values, digits) => `(${values.map((v) => number(v, digits)).join(", ")})`;
const className = (k) => (modules[state.module].dataset === "fashion" ? text(`fashion.${k}`) : String(k));

function element(tag, parent, content = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = content;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return parent.appendChild(made);
}
function table(target, rows) {
  target.replaceChildren();
  rows.forEach((row, i) => {
    const line = element("tr", target);
    row.forEach((cell, j) => element(i && j ? "td" : "th", line, cell, {scope: i ? "row" : "col"}));
  });
}
function press(buttons, isPressed) {
  [...buttons].forEach((b, i) => b.setAttribute("aria-pressed", String(isPressed(b, i))));
}

// --- Chance ---

const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
const normals = (n) => Array.from({length: n}, normal);

// --- Work that can wait: a little in each frame, the latest of its kind only ---

const waiting = new Map();

function later(name, jobs) {
  if (!waiting.size) requestAnimationFrame(work);
  waiting.set(name, jobs);
}
function work() {
  const end = performance.now() + 9;
  for (const [name, jobs] of waiting) {
    while (jobs.length && performance.now() < end) jobs.shift()();
    if (!jobs.length) waiting.delete(name);
  }
  if (waiting.size) requestAnimationFrame(work);
}

// --- Pictures ---

function paint(canvas, pixels, column = 0) {
  const context = canvas.getContext("2d");
  const data = context.createImageData(28, 28);
  for (let i = 0; i < 784; i++) {
    data.data.fill(255 * Math.min(Math.max(pixels[i], 0), 1), 4 * i, 4 * i + 3).fill(255, 4 * i + 3, 4 * i + 4);
  }
  context.putImageData(data, 30 * column, 0);
}
const paintImage = (canvas, image) => paint(canvas, Array.from(image, (v) => v / 255));

// --- Models ---

async function load(module, kind) {
  const name = `${module}-${kind}`;
  if (loaded[name]) return loaded[name];
  const {dataset, runs: {[kind]: run}} = modules[module];
  const bytes = (id) => inflate(find(id).textContent);
  const model = readModel(run.spec, await bytes(`${name}-weights`));
  const flat = joinBytes(await bytes(`${name}-codes`));
  const n = flat.length / model.latent;
  const codes = run.low.map((low, d) => Float32Array.from(flat.subarray(d * n, (d + 1) * n),
    (v) => low + (v / (run.levels - 1)) * (run.high[d] - low)));
  labels[dataset] ??= await bytes(`${dataset}-labels`);
  images[dataset] ??= await bytes(`${dataset}-images`);
  return (loaded[name] = {kind, run, model, codes, means: model.class_mean || run.means});
}
const priorMean = ({model}, digit = state.digit) =>
  model.class_mean ? model.class_mean[digit] : Array(model.latent).fill(0);
const conditional = () => benches[0].model.labelled || Boolean(benches[0].model.class_mean);
const testImage = (i) => images[modules[state.module].dataset].subarray(784 * i, 784 * (i + 1));
const byKl = ({kl}) => kl.map((_, d) => d).sort((a, b) => kl[b] - kl[a]); // dimensions
const shown = () => benches.filter((b) => state.mode === "both" || b.kind === state.mode);

async function choose(module) {
  state.module = module;
  find("main").setAttribute("aria-busy", "true");
  const made = await Promise.all(Object.keys(modules[module].runs).map((kind) => load(module, kind)));
  if (state.module !== module) return; // another was chosen meanwhile
  benches = made;
  const {model, run} = benches[0];
  Object.assign(state, {mode: benches.length > 1 ? "both" : "document", grid: false,
    dims: model.latent > 2 ? byKl(run).slice(0, 2) : [0, 1], eps: Array(model.latent).fill(0)});
  find("grid").checked = false;
  makeBenches();
  makeControls();
  drawAgain();
  fit("all");
  pick(modules[module].digits.indexOf(4));
  state.speed = measureSpeed(benches[0]);
  showTexts();
  find("main").setAttribute("aria-busy", "false");
}

// --- z ---

// Moves z in all models: to the same place, or where classes have means, as far from the mean.
function setZ(z, bench = benches[0]) {
  const step = z.map((v, i) => v - priorMean(bench)[i]);
  for (const b of benches) b.z = step.map((v, i) => v + priorMean(b)[i]);
  refresh();
}
function encodeImage() {
  for (const b of benches) {
    b.q = state.image && encode(b.model, state.image, state.digit);
    if (b.q) b.z = b.q.mean.map((m, i) => m + sum(state.eps, (e, j) => e * b.q.scale[i][j]));
  }
  paintImage(find("seen"), state.image || new Uint8Array(784));
  refresh();
}
function pick(i) {
  Object.assign(state, {image: testImage(i), digit: modules[state.module].digits[i]});
  pad.clear();
  find("drawing").classList.add("empty");
  press(find("strip").children, (b, k) => k === i);
  setDigit(state.digit);
}
function setDigit(digit) {
  for (const b of benches) b.z = b.z.map((v, i) => v - priorMean(b)[i] + priorMean(b, digit)[i]);
  state.digit = digit;
  press(find("digits").children, (b, k) => k === digit);
  encodeImage();
  showDraws();
  if (state.grid) makeGrid();
}
function drawAgain() {
  state.draws = Array.from({length: 10}, () => normals(benches[0].model.latent));
  showDraws();
}

// --- On show ---

let refreshing = false;
function refresh() {
  if (refreshing) return;
  refreshing = true;
  requestAnimationFrame(() => {
    refreshing = false;
    for (const b of shown()) showBench(b);
    showSliders();
    if (conditional()) showLabels();
  });
}
function showBench(b) {
  b.decoded = decode(b.model, b.z, state.digit);
  for (const canvas of [b.picture, find("dims-picture")]) paint(canvas, b.decoded.pixels);
  b.plane.draw();
  const [i, j] = state.dims;
  const at = (values, digits) => vector([values[i], values[j]], digits);
  const rows = [["z", at(b.z)]];
  if (b.q) rows.push(["μ", at(b.q.mean)], ["σ", at(b.q.scale.map((row) => Math.hypot(...row)), 3)]);
  b.readout.replaceChildren();
  for (const row of rows) row.forEach((entry, k) => element(k ? "dd" : "dt", b.readout, entry));
  showNats(b);
  clearTimeout(state.speaking);
  state.speaking = setTimeout(() => { find("status").textContent = `z = ${at(b.z)}`; }, 600);
}
function showNats(b) {
  if (!b.q) return table(b.nats, [["", text("nats.none")]]);
  const n = natsOf(state.module, b.model, b.run.weight, state.image, b.q, b.z, b.decoded, priorMean(b));
  const weight = n.weight === 1 ? "1" : `1/${Math.round(1 / n.weight)}`;
  table(b.nats, [
    ["", text("nats.document"), text("nats.proper")],
    [text("nats.reconstruction"), number(n.reconstruction), number(n.properReconstruction)],
    [text(FORMULAS[state.module].kl === "sampled" ? "nats.kl.sampled" : "nats.kl"), number(n.kl), number(n.properKl)],
    [text("nats.weight"), weight, "1"],
    [text("nats.sum"), number(n.reconstruction + n.kl * n.weight), number(n.properReconstruction + n.properKl)],
  ]);
}
function showLabels() {
  later("labels", shown().flatMap((b) => Array.from({length: 10}, (_, k) => () => {
    const z = b.z.map((v, i) => v - priorMean(b)[i] + priorMean(b, k)[i]);
    paint(b.labels, decode(b.model, z, k).pixels, k);
  })));
}
function showDraws() {
  later("draws", state.draws.flatMap((eps, k) => shown().map((b) => () => {
    paint(b.draws, decode(b.model, eps.map((v, i) => v + priorMean(b)[i]), state.digit).pixels, k);
  })));
  for (const {run, shares} of benches) {
    if (!run.wanted) continue;
    table(shares, [[...Array(10).keys()], run.wanted.right.map((right) => `${Math.round(right / 10)} %`)]);
    for (const row of shares.children) row.children[state.digit].className = "chosen";
  }
}

// --- The plane ---

function scene(b) {
  const [i, j] = state.dims;
  const two = (values) => [values[i], values[j]];
  return {
    codes: two(b.codes), labels: labels[modules[state.module].dataset], visible: state.visible,
    means: b.means.map(two), names: b.means.map((_, k) => className(k)), prior: two(priorMean(b)),
    q: b.q && {mean: two(b.q.mean), scale: [two(b.q.scale[i]), two(b.q.scale[j])]}, z: two(b.z),
    grid: state.grid && b.grid, numerals: modules[state.module].dataset !== "fashion",
    key: [state.dims, state.theme, state.grid && b.grid.filter((g) => g.picture).length],
  };
}
function moveTo(b, point) {
  setZ(b.z.map((v, d) => point[state.dims.indexOf(d)] ?? v), b);
}
function zoom(factor, dx = 0, dy = 0) {
  for (const {plane: {view, draw}} of benches) {
    view.half = Math.min(Math.max(view.half * factor, 0.05), 400);
    view.x += dx;
    view.y += dy;
    draw();
  }
}
// "all": nearly all codes of all models, on one scale; "prior": four standard deviations around it.
function fit(what) {
  const own = Boolean(benches[0].model.class_mean); // classes have means of their own in each model
  const ranges = benches.map(({run}) => state.dims.map((d) => run.near.map((codes) => codes[d])));
  const middles = ranges.map((axes) => axes.map(([low, high]) => (own ? (low + high) / 2 : 0)));
  const halves = ranges.flat().map(([low, high], i) =>
    Math.max(high - middles.flat()[i], middles.flat()[i] - low));
  benches.forEach((b, i) => {
    const [x, y] = what === "all" ? middles[i] : scene(b).prior;
    Object.assign(b.plane.view, {x, y, half: what === "all" ? Math.max(REACH, ...halves) * 1.05 : REACH});
    b.plane.draw();
  });
}
// The document's own grid of codes; each picture fills the space half-way to its neighbours.
function makeGrid() {
  const axis = modules[state.module].grid;
  const edge = (k) => (k < 0 ? 1.5 * axis[0] - 0.5 * axis[1] : k >= axis.length - 1
    ? 1.5 * axis.at(-1) - 0.5 * axis.at(-2) : (axis[k] + axis[k + 1]) / 2);
  const jobs = [];
  for (const b of shown()) {
    const [x0, y0] = priorMean(b);
    b.grid = axis.flatMap((y, i) => axis.map((x, j) => ({x: x0 + x, y: y0 + y, left: x0 + edge(j - 1),
      right: x0 + edge(j), bottom: y0 + edge(i - 1), top: y0 + edge(i)})));
    b.grid.forEach((cell, k) => jobs.push(() => {
      cell.picture = element("canvas", document.createDocumentFragment(), "", {width: 28, height: 28});
      paint(cell.picture, decode(b.model, [cell.x, cell.y], state.digit).pixels);
      if (k % 15 === 14) b.plane.draw();
    }));
    jobs.push(b.plane.draw);
  }
  later("grid", jobs);
}

// --- Fifty dimensions ---

function showSliders() {
  for (const input of find("sliders").querySelectorAll("input")) {
    input.value = benches[0].z[Number(input.dataset.dim)];
    input.nextElementSibling.value = number(Number(input.value));
  }
}
function makeSliders() {
  const {kl} = benches[0].run;
  find("sliders").replaceChildren();
  find("dims").hidden = kl.length === 2;
  if (kl.length === 2) return;
  const order = byKl(benches[0].run);
  const dead = (d) => kl[d] < 0.01;
  for (const axis of [0, 1]) {
    const select = find(`dim-${axis}`);
    select.replaceChildren();
    for (const d of order) element("option", select, `${d + 1}: ${dead(d) ? text("dims.dead") : number(kl[d])}`, {value: d});
    select.value = state.dims[axis];
  }
  for (const d of order.slice(0, 8)) {
    const label = element("label", find("sliders"), text("dims.slider", {n: d + 1}));
    const input = element("input", label, "", {type: "range", min: -4, max: 4, step: 0.05, "data-dim": d});
    element("output", label);
    input.addEventListener("input", () => setZ(benches[0].z.map((v, i) => (i === d ? Number(input.value) : v))));
  }
  for (const [id, digit] of [["from", 4], ["to", 9]]) {
    find(id).replaceChildren();
    modules[state.module].digits.forEach((k, i) => element("option", find(id), text("path.image", {k, n: i + 1}), {value: i}));
    find(id).value = modules[state.module].digits.indexOf(digit);
  }
  find("bars").replaceChildren();
  for (const d of order) {
    const bar = element("span", find("bars"), dead(d) ? "×" : d + 1);
    bar.style.setProperty("--share", kl[d] / kl[order[0]]);
    bar.className = dead(d) ? "dead" : state.dims.includes(d) ? "chosen" : "";
  }
}
function walk() {
  const [a, b] = ["from", "to"].map((id) => encode(benches[0].model, testImage(Number(find(id).value)), 0).mean);
  const t = Number(find("path").value);
  setZ(a.map((v, i) => (1 - t) * v + t * b[i]));
}

// --- Building what a module needs ---

function makeBenches() {
  for (const id of ["benches", "nats", "draws", "labels"]) find(id).replaceChildren();
  for (const b of benches) {
    const article = find("bench").content.cloneNode(true).firstElementChild;
    article.dataset.kind = b.kind;
    find("benches").append(article);
    const [plane, picture] = article.querySelectorAll("canvas");
    const [nats, draws, same] = ["nats", "draws", "labels"].map((id) =>
      element("div", find(id), "", {"data-kind": b.kind}));
    const strip = (parent, key) =>
      element("canvas", parent, "", {width: 298, height: 28, role: "img", class: "tens", "data-label": key});
    b.heads = [article.querySelector("h4"), ...[nats, draws, same].map((part) => element("h4", part))];
    Object.assign(b, {picture, z: priorMean(b), q: null, grid: null, readout: article.querySelector("dl"),
      nats: element("table", nats), draws: strip(draws, "draws.title"), labels: strip(same, "labels.title"),
      shares: element("table", draws, "", {class: "shares"})});
    b.plane = makePlane(plane, {scene: () => scene(b), move: (point) => moveTo(b, point), zoom});
  }
}
function makeControls() {
  const {dataset, digits} = modules[state.module];
  find("strip").replaceChildren();
  digits.forEach((_, i) => {
    const button = element("button", find("strip"), "", {type: "button"});
    paintImage(element("canvas", button, "", {width: 28, height: 28}), testImage(i));
    button.addEventListener("click", () => pick(i));
  });
  find("drawing").hidden = dataset === "fashion";
  find("digit-choice").hidden = find("labels-row").hidden = !conditional();
  find("grid-choice").hidden = benches[0].model.latent > 2;
  find("modes").hidden = benches.length < 2;
}
function setMode(mode) {
  state.mode = mode;
  press(find("modes").children, (b) => b.dataset.mode === mode);
  for (const pair of document.querySelectorAll(".pair")) {
    for (const part of pair.children) part.hidden = mode !== "both" && part.dataset.kind !== mode;
    pair.classList.toggle("single", mode !== "both");
  }
  showDraws();
  if (state.grid) makeGrid();
  refresh();
}

// All words, in the language that is chosen.
function showTexts() {
  const costs = {document: modules[state.module].document, module: state.module};
  for (const {kind, run} of benches) {
    for (const [k, v] of Object.entries(run.evaluation)) costs[`${k}_${kind}`] = number(v, Math.abs(v) < 100 ? 1 : 0);
    if (run.wanted) costs[`share_${kind}`] = percent(run.wanted.share);
  }
  const [ours, twin] = benches.map((b) => b.run.evaluation.elbo);
  if (twin) costs.gap = number(twin - ours, 1);
  [costs.encode, costs.decode] = state.speed.map((ms) => number(ms, 1));
  document.documentElement.lang = state.language;
  document.title = text("title");
  for (const e of document.querySelectorAll("[data-t]")) e.textContent = text(e.dataset.t, costs);
  for (const e of document.querySelectorAll("[data-label]")) e.setAttribute("aria-label", text(e.dataset.label));
  for (const b of benches) {
    for (const head of b.heads) head.textContent = text(`run.${b.kind}`);
    b.plane.canvas.setAttribute("aria-label", text("plane.label", {name: text(`run.${b.kind}`)}));
  }
  [...find("legend").children].forEach((button, k) => { button.textContent = className(k); });
  modules[state.module].digits.forEach((k, i) =>
    find("strip").children[i].setAttribute("aria-label", text("strip.image", {name: className(k)})));
  press(document.querySelectorAll("[data-language]"), (b) => b.dataset.language === state.language);
  press(find("models").children, (b) => b.dataset.module === state.module);
  showMeasured();
  makeSliders();
  setMode(state.mode);
}

// Milliseconds for an encoder and a decoder.
function measureSpeed({model, q}) {
  return [() => encode(model, state.image, 0), () => decode(model, q.mean, 0)].map((action) => {
    const start = performance.now();
    for (let i = 0; i < 9; i++) action();
    return (performance.now() - start) / 9;
  });
}
function showMeasured() {
  const row = (key, digits) => [text(`measured.${key}`), ...benches.map((b) => number(b.run.evaluation[key], digits))];
  const rows = [["", ...benches.map((b) => text(`run.${b.kind}`))], row("reconstruction", 2), row("kl", 2),
    row("kl_weight", 4), row("elbo", 2), row("log_likelihood", 2), row("effective_samples", 0)];
  if (benches[0].run.wanted) rows.push([text("measured.wanted"), ...benches.map((b) => percent(b.run.wanted.share))]);
  table(find("measured"), rows);
  const small = (v) => v.toExponential(1).replace("-", "−");
  const proof = [["", text("proof.numpy"), text("proof.javascript"), text("proof.rounding")]];
  for (const module of Object.keys(modules)) {
    for (const [kind, {differences}] of Object.entries(modules[module].runs)) {
      proof.push([`${module}${kind === "twin" ? ` (${text("mode.twin")})` : ""}`, ...differences.map(small)]);
    }
  }
  table(find("proof"), proof);
}
// Of all classes the first click leaves one; what follows adds and removes.
function filter(k) {
  if (state.visible.size === 10) state.visible = new Set([k]);
  else if (!state.visible.delete(k)) state.visible.add(k);
  if (!state.visible.size) state.visible = new Set(Array(10).keys());
  press(find("legend").children, (b, i) => state.visible.has(i));
  refresh();
}

// --- What people do ---

const pad = makePad(find("pad"), drawn);
function drawn(ink) {
  state.image = normalise(ink, find("centred").checked);
  find("drawing").classList.toggle("empty", !state.image);
  press(find("strip").children, () => false);
  encodeImage();
}
const listen = (id, event, action) => find(id).addEventListener(event, action);
listen("clear", "click", () => { pad.clear(); drawn(pad.ink()); });
listen("centred", "change", () => { if (pad.ink().some((v) => v > 0.1)) drawn(pad.ink()); });
listen("resample", "click", () => { state.eps = normals(benches[0].model.latent); encodeImage(); });
listen("mean", "click", () => { state.eps.fill(0); encodeImage(); });
listen("dice", "click", () => setZ(priorMean(benches[0]).map((m) => m + normal())));
listen("again", "click", drawAgain);
listen("grid", "change", () => { state.grid = find("grid").checked; setMode(state.mode); });
listen("path", "input", walk);
for (const id of ["from", "to"]) listen(id, "change", walk);
for (const axis of [0, 1]) {
  listen(`dim-${axis}`, "change", (event) => {
    state.dims[axis] = Number(event.target.value);
    makeSliders();
    fit("all");
    refresh();
  });
}
listen("scheme", "click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.scheme = dark ? "light" : "dark";
  state.theme++;
  refresh();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { state.theme++; refresh(); });
function listenAll(name, action) {
  for (const button of document.querySelectorAll(`[data-${name}]`)) {
    button.addEventListener("click", () => action(button.dataset[name]));
  }
}
const FACTORS = {in: 0.7, out: 1 / 0.7};
listenAll("mode", setMode);
listenAll("view", (view) => (FACTORS[view] ? zoom(FACTORS[view]) : fit(view)));
listenAll("language", (language) => { state.language = language; showTexts(); });
for (let k = 0; k < 10; k++) {
  element("button", find("digits"), k, {type: "button"}).addEventListener("click", () => setDigit(k));
  element("button", find("legend"), "", {type: "button", class: `class-${k}`}).addEventListener("click", () => filter(k));
}
for (const module of Object.keys(modules)) {
  const button = element("button", find("models"), "", {type: "button", "data-module": module});
  element("strong", button, module);
  element("span", button, "", {"data-t": `dataset.${module}`});
  button.addEventListener("click", () => { location.hash = module; });
}
function chooseNamed() {
  const name = location.hash.slice(1);
  return choose(Object.hasOwn(modules, name) ? name : Object.keys(modules)[0]);
}
addEventListener("hashchange", chooseNamed);
press(find("legend").children, () => true);
chooseNamed();
