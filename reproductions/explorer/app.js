// Building what a model needs, all words, and what people do.
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
  find("drawing").hidden = dataset === "fashion_mnist";
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
    [text("measured.kl_weight"), ...benches.map((b) => fraction(b.run.weight))],
    row("elbo", 2), row("log_likelihood", 2), row("effective_samples", 0)];
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
for (const id of ["path", "from", "to"]) listen(id, "input", walk);
function chooseAxis(axis, dimension) {
  const chosen = Number(dimension);
  if (state.dims[1 - axis] === chosen) state.dims[1 - axis] = state.dims[axis]; // they change places
  state.dims[axis] = chosen;
  makeSliders();
  fit("all");
  refresh();
}
for (const axis of [0, 1]) listen(`dim-${axis}`, "change", (event) => chooseAxis(axis, event.target.value));
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
  element("button", find("legend"), "", {type: "button", class: `class-${k}`, "aria-pressed": "true"})
    .addEventListener("click", () => filter(k));
}
for (const module of Object.keys(modules)) {
  const button = element("button", find("models"), "", {type: "button", "data-module": module});
  element("strong", button, module);
  element("span", button, "", {"data-t": `dataset.${module}`});
  button.addEventListener("click", () => { location.hash = module; });
}
const named = () => location.hash.slice(1);
const chooseNamed = () => choose(Object.hasOwn(modules, named()) ? named() : Object.keys(modules)[0]);
addEventListener("hashchange", chooseNamed);
chooseNamed();
