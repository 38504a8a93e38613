// The networks' arithmetic: what networks.py computes, on one image or code at a time.
const ACTIVATIONS = {linear: (x) => x, relu: (x) => (x > 0 ? x : 0), tanh: Math.tanh,
  leaky_relu: (x) => (x > 0 ? x : 0.2 * x)};
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => (x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x)));

// Adds x[from ...], as a row, times a matrix [inputs, outputs] at kernel[tap ...] to y[to ...].
function addProduct(y, to, x, from, inputs, kernel, tap, outputs) {
  for (let c = 0; c < inputs; c++, tap += outputs) {
    const value = x[from + c];
    if (value === 0) continue; // half of them, after a relu
    for (let k = 0; k < outputs; k++) y[to + k] += value * kernel[tap + k];
  }
}

function dense(layer, x) {
  const outputs = layer.bias.length;
  const y = new Float32Array(outputs);
  addProduct(y, 0, x, 0, x.length, layer.kernel, 0, outputs);
  return y;
}

// The zeros that "same" padding puts before n pixels.
function paddingBefore(n, size, stride) {
  return Math.max((Math.ceil(n / stride) - 1) * stride + size - n, 0) >> 1;
}

// A convolution takes a large image to a small one, a transposed one a small image to a large one. Both
// visit every pair of a small pixel and a large one that the kernel connects.
function convolve(layer, x) {
  const {kernel, size, stride, shape: [height, , inputs]} = layer;
  const [transposed, same] = [layer.kind === "conv_transpose", layer.padding === "same"];
  const outputs = layer.bias.length;
  let [small, large] = [height, same ? height * stride : (height - 1) * stride + size];
  if (!transposed) [small, large] = [Math.ceil((same ? height : height - size + 1) / stride), height];
  const pad = same ? paddingBefore(large, size, stride) : 0;
  const n = transposed ? large : small;
  const y = new Float32Array(n * n * outputs);
  for (let pixel = 0; pixel < small * small; pixel++) {
    for (let tap = 0; tap < size * size; tap++) {
      const down = Math.floor(pixel / small) * stride + Math.floor(tap / size) - pad;
      const right = (pixel % small) * stride + (tap % size) - pad;
      if (down < 0 || down >= large || right < 0 || right >= large) continue;
      const other = down * large + right;
      const [to, from] = transposed ? [other, pixel] : [pixel, other];
      addProduct(y, to * outputs, x, from * inputs, inputs, kernel, tap * inputs * outputs, outputs);
    }
  }
  return y;
}

function applyNetwork(network, x) {
  for (const layer of network) {
    const y = layer.kind === "dense" ? dense(layer, x) : convolve(layer, x);
    const activation = ACTIVATIONS[layer.activation];
    const outputs = layer.bias.length;
    for (let i = 0; i < y.length; i++) y[i] = activation(y[i] + layer.bias[i % outputs]);
    x = y;
  }
  return x;
}

// x, and a one-hot label after it where the network is told one.
function withLabel(model, x, digit) {
  if (!model.labelled) return x;
  const both = new Float32Array(x.length + 10);
  both.set(x);
  both[x.length + digit] = 1;
  return both;
}

// Grey levels 0 .. 255 as the model takes them.
function asInput(model, image) {
  return Float32Array.from(image, model.binarised ? (v) => Number(v >= 128) : (v) => v / 255);
}

// q(z|x): its mean, and the lower triangular scale that makes a sample mean + scale * eps.
function encode(model, image, digit) {
  const parameters = applyNetwork(model.encoder, withLabel(model, asInput(model, image), digit));
  const n = model.latent;
  const mean = Array.from(parameters.slice(0, n));
  const rest = parameters.slice(n);
  if (model.posterior === "triangular") {
    const diagonal = (v) => softplus(v) + 1e-5;
    return {mean, scale: [[diagonal(rest[2]), 0], [rest[1], diagonal(rest[0])]]};
  }
  const scale = mean.map((_, i) => mean.map((_, j) => (i === j ? Math.exp(rest[i] / 2) : 0)));
  return {mean, scale};
}

// The picture of a code: what the decoder gives, and the pixels 0 .. 1 that it stands for.
function decode(model, z, digit) {
  const raw = applyNetwork(model.decoder, withLabel(model, Float32Array.from(z), digit));
  return {raw, pixels: model.output === "sigmoid" ? raw.map(sigmoid) : raw};
}
