// The models: loading them, and moving z in all of those on show.
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
  state.wanted = module;
  find("main").setAttribute("aria-busy", "true");
  const made = await Promise.all(Object.keys(modules[module].runs).map((kind) => load(module, kind)))
    .catch((error) => { find("old").hidden = false; throw error; });
  if (state.wanted !== module) return; // another was chosen meanwhile
  benches = made;
  const {model, run} = benches[0];
  Object.assign(state, {module, mode: benches.length > 1 ? "both" : "document", grid: false,
    dims: model.latent > 2 ? byKl(run).slice(0, 2) : [0, 1], eps: Array(model.latent).fill(0)});
  find("grid").checked = false;
  makeBenches();
  makeControls();
  drawAgain();
  fit("all");
  // A 7, which all models restore; or the 4, which tfp_cvae does not draw when asked for it.
  pick(modules[module].digits.indexOf(conditional() ? 4 : 7));
  state.speed = measureSpeed(benches[0]);
  showTexts();
  find("main").setAttribute("aria-busy", "false");
}

// --- z ---
// Moves z in all models: to the same place, or where classes have means, as far from the mean.
function setZ(z, bench = benches[0]) {
  const step = z.map((v, i) => v - priorMean(bench)[i]);
  for (const b of benches) b.z = step.map((v, i) => v + priorMean(b)[i]);
  state.moved = true;
  refresh();
}
// Moves z into q(z|x), unless a person moved it elsewhere.
function encodeImage(moved = false) {
  state.moved = moved;
  for (const b of benches) {
    b.q = state.image && encode(b.model, state.image, state.digit);
    if (b.q && !moved) b.z = b.q.mean.map((m, i) => m + sum(state.eps, (e, j) => e * b.q.scale[i][j]));
  }
  paintImage(find("seen"), state.image || new Uint8Array(784));
  refresh();
}
function pick(i) {
  Object.assign(state, {image: testImage(i), digit: modules[state.module].digits[i], moved: false});
  pad.clear();
  find("drawing").classList.add("empty");
  press(find("strip").children, (b, k) => k === i);
  setDigit(state.digit);
}
function setDigit(digit) {
  for (const b of benches) b.z = b.z.map((v, i) => v - priorMean(b)[i] + priorMean(b, digit)[i]);
  state.digit = digit;
  press(find("digits").children, (b, k) => k === digit);
  encodeImage(state.moved);
  showDraws();
  if (state.grid) makeGrid();
}
function drawAgain() {
  state.draws = Array.from({length: 10}, () => normals(benches[0].model.latent));
  showDraws();
}
