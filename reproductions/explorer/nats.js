// Reconstruction and KL of one image, in nats: as the documents' programs compute them, and properly.
const GAUSSIAN_CONSTANT = 392 * Math.log(2 * Math.PI); // of 784 pixels with variance 1

const sum = (values, term) => values.reduce((total, value, i) => total + term(value, i), 0);

// x: pixels as the model takes them, 0 .. 1. decoded: what decode() returned.
const RECONSTRUCTIONS = {
  squared: (x, {raw}) => 0.5 * sum(x, (v, i) => (raw[i] - v) ** 2),
  logits: (x, {raw}) =>
    sum(x, (v, i) => Math.max(raw[i], 0) - raw[i] * v + Math.log1p(Math.exp(-Math.abs(raw[i])))),
  // In single precision 1e-10 + 1 is 1: the guard of the second logarithm guards nothing.
  guarded: (x, {pixels}) =>
    -sum(x, (v, i) => v * Math.log(1e-10 + pixels[i]) + (1 - v) * Math.log(Math.fround(1 - pixels[i]))),
  clipped: (x, {pixels}) =>
    -sum(x, (v, i) => {
      const p = Math.min(Math.max(pixels[i], 1e-7), 1 - 1e-7);
      return v * Math.log(p + 1e-7) + (1 - v) * Math.log(1 - p + 1e-7);
    }),
};

const FORMULAS = {
  mlp_vae: {reconstruction: "squared", proper: "squared", kl: "closed"},
  mlp_cvae: {reconstruction: "squared", proper: "squared", kl: "closed"},
  conv_vae: {reconstruction: "logits", proper: "logits", kl: "closed"},
  elbo_cvae: {reconstruction: "logits", proper: "logits", kl: "sampled"},
  rmsprop_vae: {reconstruction: "guarded", proper: "logits", kl: "closed"},
  tfp_cvae: {reconstruction: "clipped", proper: "logits", kl: "sampled"},
};

const logDeterminant = (scale) => sum(scale, (row, i) => Math.log(row[i]));

// The KL of N(mean, scale scale') from N(priorMean, 1).
function closedKl({mean, scale}, priorMean) {
  const squares = sum(scale, (row) => sum(row, (v) => v * v));
  const distance = sum(mean, (v, i) => (v - priorMean[i]) ** 2);
  return 0.5 * (squares + distance - mean.length) - logDeterminant(scale);
}

// log q(z|x) - log p(z): the KL on average over z, not for one z.
function sampledKl({mean, scale}, priorMean, z) {
  const eps = [];
  for (let i = 0; i < mean.length; i++) {
    eps.push((z[i] - mean[i] - sum(eps, (v, j) => scale[i][j] * v)) / scale[i][i]);
  }
  const outer = sum(z, (v, i) => (v - priorMean[i]) ** 2);
  return 0.5 * (outer - sum(eps, (v) => v * v)) - logDeterminant(scale);
}

// All that the page tells of an image in one model.
function natsOf(module, model, image, q, z, decoded, priorMean) {
  const formula = FORMULAS[module];
  const x = asInput(model, image);
  const kl = closedKl(q, priorMean);
  const constant = formula.proper === "squared" ? GAUSSIAN_CONSTANT : 0;
  return {
    reconstruction: RECONSTRUCTIONS[formula.reconstruction](x, decoded),
    kl: formula.kl === "closed" ? kl : sampledKl(q, priorMean, z),
    properReconstruction: RECONSTRUCTIONS[formula.proper](x, decoded) + constant,
    properKl: kl,
  };
}
