// The networks' arithmetic: what common/networks.py computes, on one image or code at a time.

const ACTIVATIONS = {
  linear: (x) => x,
  relu: (x) => (x > 0 ? x : 0),
  leaky_relu: (x) => (x > 0 ? x : 0.2 * x),
  tanh: Math.tanh,
};

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => (x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x)));

// target[at ...] += factor * weights[from ...], n numbers.
function addScaled(target, at, factor, weights, from, n) {
  for (let k = 0; k < n; k++) target[at + k] += factor * weights[from + k];
}

function dense(layer, x) {
  const outputs = layer.bias.length;
  const y = new Float32Array(outputs);
  for (let i = 0; i < x.length; i++) {
    if (x[i] !== 0) addScaled(y, 0, x[i], layer.kernel, i * outputs, outputs);
  }
  return y;
}

// The zeros that "same" padding puts before n pixels.
function paddingBefore(n, size, stride) {
  return Math.max((Math.ceil(n / stride) - 1) * stride + size - n, 0) >> 1;
}

// Visits every pair of a small pixel and a large one that a kernel of this size and stride connects:
// small = large / stride. For a convolution the large one is its input, for a transposed one its output.
function forEachPair(small, large, size, stride, pad, visit) {
  for (let row = 0; row < small; row++) {
    for (let column = 0; column < small; column++) {
      for (let i = 0; i < size; i++) {
        const y = row * stride + i - pad;
        if (y < 0 || y >= large) continue;
        for (let j = 0; j < size; j++) {
          const x = column * stride + j - pad;
          if (x >= 0 && x < large) visit(row * small + column, y * large + x, i * size + j);
        }
      }
    }
  }
}

function convolution(layer, x) {
  const {kernel, size, stride, padding, shape: [height, , inputs]} = layer;
  const outputs = layer.bias.length;
  const same = padding === "same";
  const pad = same ? paddingBefore(height, size, stride) : 0;
  const small = same ? Math.ceil(height / stride) : Math.floor((height - size) / stride) + 1;
  const y = new Float32Array(small * small * outputs);
  forEachPair(small, height, size, stride, pad, (to, from, tap) => {
    for (let c = 0; c < inputs; c++) {
      const value = x[from * inputs + c];
      if (value !== 0) addScaled(y, to * outputs, value, kernel, (tap * inputs + c) * outputs, outputs);
    }
  });
  return y;
}

function transposedConvolution(layer, x) {
  const {kernel, size, stride, padding, shape: [height, , inputs]} = layer;
  const outputs = layer.bias.length;
  const same = padding === "same";
  const large = same ? height * stride : (height - 1) * stride + size;
  const pad = same ? paddingBefore(large, size, stride) : 0;
  const y = new Float32Array(large * large * outputs);
  forEachPair(height, large, size, stride, pad, (from, to, tap) => {
    for (let c = 0; c < inputs; c++) {
      const value = x[from * inputs + c];
      if (value !== 0) addScaled(y, to * outputs, value, kernel, (tap * inputs + c) * outputs, outputs);
    }
  });
  return y;
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
