// What is on show: pictures, numbers, planes, and the fifty dimensions.
let refreshing = false;
function refresh() {
  if (refreshing) return;
  refreshing = true;
  requestAnimationFrame(() => {
    refreshing = false;
    for (const b of shown()) showBench(b);
    announce();
    showSliders();
    if (conditional()) showLabels();
  });
}
function showBench(b) {
  b.decoded = decode(b.model, b.z, state.digit);
  for (const canvas of [b.picture, find("dims-picture")]) paint(canvas, b.decoded.pixels);
  b.plane.draw();
  const rows = [["z", vector(two(b.z))]];
  if (b.q) rows.push(["μ", vector(two(b.q.mean))], ["σ", vector(two(b.q.scale).map((row) => Math.hypot(...row)), 3)]);
  b.readout.replaceChildren();
  for (const row of rows) row.forEach((entry, k) => element(k ? "dd" : "dt", b.readout, entry));
  showNats(b);
}
// Says once where z has come to rest.
function announce() {
  clearTimeout(state.speaking);
  state.speaking = setTimeout(() => {
    const said = shown().map((b) => `${text(`mode.${b.kind}`)}: z = ${vector(two(b.z))}`).join("; ");
    if (find("status").textContent !== said) find("status").textContent = said;
  }, 600);
}
function showNats(b) {
  if (!b.q) return table(b.nats, [["", text("nats.none")]]);
  const n = natsOf(state.module, b.model, state.image, b.q, b.z, b.decoded, priorMean(b));
  const {weight} = b.run; // of the KL in the run's objective
  table(b.nats, [
    ["", text("nats.document"), text("nats.proper")],
    [text("nats.reconstruction"), number(n.reconstruction), number(n.properReconstruction)],
    [text(FORMULAS[state.module].kl === "sampled" ? "nats.kl.sampled" : "nats.kl"), number(n.kl), number(n.properKl)],
    [text("nats.weight"), fraction(weight), "1"],
    [text("nats.sum"), number(n.reconstruction + n.kl * weight), number(n.properReconstruction + n.properKl)],
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
    table(shares, [[...Array(10).keys()], run.wanted.right.map((right) => percent(right / run.drawn))], false);
    for (const row of shares.children) row.children[state.digit].className = "chosen";
  }
}

// --- The plane ---
const two = (values) => state.dims.map((d) => values[d]);
function scene(b) {
  return {
    codes: two(b.codes), labels: labels[modules[state.module].dataset], visible: state.visible,
    means: b.means.map(two), names: b.means.map((_, k) => className(k)), prior: two(priorMean(b)),
    q: b.q && {mean: two(b.q.mean), scale: two(b.q.scale).map(two)}, z: two(b.z),
    grid: state.grid && b.grid, numerals: modules[state.module].dataset !== "fashion_mnist",
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
// "all": nearly all codes of each model, and the prior where it is around the origin; one scale for
// all models. "prior": four standard deviations around it.
function fit(what) {
  const circle = benches[0].model.class_mean ? [] : [-3, 3];
  const ranges = benches.map(({run}) => state.dims.map((d) =>
    [Math.min, Math.max].map((most, i) => most(run.near[i][d], ...circle))));
  const middles = ranges.map((axes) => axes.map(([low, high]) => (low + high) / 2));
  const halves = ranges.flat().map(([low, high], i) =>
    Math.max(high - middles.flat()[i], middles.flat()[i] - low));
  benches.forEach((b, i) => {
    const [x, y] = what === "all" ? middles[i] : two(priorMean(b));
    Object.assign(b.plane.view, {x, y, half: what === "all" ? Math.max(REACH, ...halves) * 1.05 : REACH});
    b.plane.draw();
  });
}
// The document's own grid of codes; each picture fills the space half-way to its neighbours.
function makeGrid() {
  const axis = modules[state.module].grid;
  const n = axis.length;
  const wide = [2 * axis[0] - axis[1], ...axis, 2 * axis[n - 1] - axis[n - 2]];
  const edge = (k) => (wide[k] + wide[k + 1]) / 2; // below cell k
  const jobs = [];
  for (const b of shown()) {
    const [x0, y0] = priorMean(b);
    b.grid = axis.flatMap((y, i) => axis.map((x, j) => ({x: x0 + x, y: y0 + y, left: x0 + edge(j),
      right: x0 + edge(j + 1), bottom: y0 + edge(i), top: y0 + edge(i + 1)})));
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
    const v = benches[0].z[Number(input.dataset.dim)];
    input.value = v; // rounded, and cut at its ends
    input.nextElementSibling.value = number(v);
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
    const chosen = find(id).value;
    find(id).replaceChildren();
    modules[state.module].digits.forEach((k, i) => element("option", find(id), text("path.image", {k, n: i + 1}), {value: i}));
    find(id).value = chosen || modules[state.module].digits.indexOf(digit);
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
