// Drawing a digit, and what MNIST's makers did to theirs: fit into 20 x 20, centre of mass in the middle.
const [PAD, BRUSH] = [280, 26]; // pixels along a side, and across a stroke

// Ink 0 .. 1 in a square of this canvas, averaged over each pixel of a 28 x 28 picture.
// left, top: of the square; scale: canvas pixels for one pixel of the picture.
function averaged(ink, left, top, scale) {
  const picture = new Float32Array(784);
  const steps = Math.max(2, Math.ceil(scale));
  for (let p = 0; p < 784; p++) {
    let total = 0;
    for (let i = 0; i < steps * steps; i++) {
      const x = Math.floor(left + ((p % 28) + ((i % steps) + 0.5) / steps) * scale);
      const y = Math.floor(top + (Math.floor(p / 28) + (Math.floor(i / steps) + 0.5) / steps) * scale);
      if (x >= 0 && y >= 0 && x < PAD && y < PAD) total += ink[y * PAD + x];
    }
    picture[p] = total / (steps * steps);
  }
  return picture;
}

function centreOfMass(values, width) {
  const mass = sum(values, (v) => v);
  return [sum(values, (v, i) => v * ((i % width) + 0.5)) / mass,
    sum(values, (v, i) => v * (Math.floor(i / width) + 0.5)) / mass];
}

// What the model is given of a drawing, grey levels 0 .. 255, or null where there is no ink.
function normalise(ink, centred) {
  let [left, right, top, bottom] = [PAD, -1, PAD, -1];
  ink.forEach((v, i) => {
    if (v < 0.1) return;
    const [x, y] = [i % PAD, Math.floor(i / PAD)];
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
  });
  if (right < 0) return null;
  let picture = averaged(ink, 0, 0, PAD / 28);
  if (centred) {
    const scale = Math.max(right - left, bottom - top, 40) / 20;
    const [x, y] = centreOfMass(ink, PAD);
    picture = averaged(ink, x - 14 * scale, y - 14 * scale, scale);
  }
  return Uint8Array.from(picture, (v) => Math.round(v * 255));
}

// Makes a canvas one to draw on. changed(ink): called with ink 0 .. 1 once a frame while drawing.
function makePad(canvas, changed) {
  canvas.width = canvas.height = PAD;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  let [last, waiting] = [null, false];

  function ink() {
    const {data} = context.getImageData(0, 0, PAD, PAD);
    return Float32Array.from({length: PAD * PAD}, (_, i) => data[4 * i] / 255);
  }
  function tell() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; changed(ink()); });
  }
  function at(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.x) * (PAD / box.width), (event.clientY - box.y) * (PAD / box.height)];
  }
  function stroke(to) {
    Object.assign(context, {lineWidth: BRUSH, lineCap: "round", strokeStyle: "#fff",
      shadowColor: "#fff", shadowBlur: 7});
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
    last = to;
    tell();
  }
  function clear() {
    context.shadowBlur = 0;
    context.fillStyle = "#000";
    context.fillRect(0, 0, PAD, PAD);
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    stroke(last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const steps = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const step of steps.length ? steps : [event]) stroke(at(step));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
  clear();
  return {clear, ink};
}
