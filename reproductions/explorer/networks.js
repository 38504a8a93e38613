// The networks' arithmetic: what common/networks.py computes, on one image or code at a time.

const ACTIVATIONS = {
  linear: (x) => x,
  relu: (x) => (x > 0 ? x : 0),
  leaky_relu: (x) => (x > 0 ? x : 0.2 * x),
  tanh: Math.tanh,
};

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

// A convolution takes large images to small ones, a transposed one small images to large ones. Both
// visit every pair of a small pixel and a large one that the kernel connects.
function convolve(layer, x, small, large, pad, transposed) {
  const {kernel, size, stride, shape: [, , inputs]} = layer;
  const outputs = layer.bias.length;
  const n = transposed ? large : small;
  const y = new Float32Array(n * n * outputs);
  for (let row = 0; row < small; row++) {
    for (let column = 0; column < small; column++) {
      const ofSmall = row * small + column;
      for (let i = 0; i < size; i++) {
        const down = row * stride + i - pad;
        if (down < 0 || down >= large) continue;
        for (let j = 0; j < size; j++) {
          const right = column * stride + j - pad;
          if (right < 0 || right >= large) continue;
          const ofLarge = down * large + right;
          const [to, from] = transposed ? [ofLarge, ofSmall] : [ofSmall, ofLarge];
          const tap = (i * size + j) * inputs * outputs;
          addProduct(y, to * outputs, x, from * inputs, inputs, kernel, tap, outputs);
        }
      }
    }
  }
  return y;
}

function convolution(layer, x) {
  const {size, stride, padding, shape: [height]} = layer;
  if (padding === "valid") {
    return convolve(layer, x, Math.floor((height - size) / stride) + 1, height, 0, false);
  }
  const pad = paddingBefore(height, size, stride);
  return convolve(layer, x, Math.ceil(height / stride), height, pad, false);
}

function transposedConvolution(layer, x) {
  const {size, stride, padding, shape: [height]} = layer;
  if (padding === "valid") {
    return convolve(layer, x, height, (height - 1) * stride + size, 0, true);
  }
  const large = height * stride;
  return convolve(layer, x, height, large, paddingBefore(large, size, stride), true);
}

const KINDS = {dense, conv: convolution, conv_transpose: transposedConvolution};

function applyNetwork(network, x) {
  for (const layer of network) {
    const y = KINDS[layer.kind](layer, x);
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
