// What build.py packed: deflated bytes as base64, sixteen-bit numbers with low and high bytes apart.
async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function joinBytes(bytes) {
  const n = bytes.length / 2;
  return Uint16Array.from({length: n}, (_, i) => bytes[i] | (bytes[n + i] << 8));
}

// A model of its description and its weights; they lie in the order of the description.
function readModel(spec, bytes) {
  const numbers = joinBytes(bytes);
  let at = 0;
  function tensor({step, count}) {
    const values = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const n = numbers[at++];
      values[i] = ((n >> 1) ^ -(n & 1)) * step; // 0, 1, 2, 3, ... are 0, -1, 1, -2, ...
    }
    return values;
  }
  const layers = (network) =>
    network.map((layer) => ({...layer, kernel: tensor(layer.kernel), bias: tensor(layer.bias)}));
  const model = {...spec, encoder: layers(spec.encoder), decoder: layers(spec.decoder)};
  if (spec.class_mean) {
    const flat = Array.from(tensor(spec.class_mean));
    model.class_mean = Array.from({length: 10}, (_, k) => flat.slice(2 * k, 2 * k + 2));
  }
  return model;
}
