// What the page is about, which model, z and image; and the small things that everything else uses.
const find = (id) => document.getElementById(id);
const modules = JSON.parse(find("modules").textContent);
const texts = JSON.parse(find("texts").textContent);
const state = {
  language: (navigator.language || "en").startsWith("zh") ? "zh" : "en",
  module: null, mode: "both", digit: 4, image: null, dims: [0, 1], draws: [], eps: null,
  visible: new Set(Array(10).keys()), grid: false, theme: 0, speed: [],
  moved: false, // whether z was moved since the image was chosen
};
const loaded = {}; // models and codes, by module and run
const [images, labels] = [{}, {}]; // of a data set: twenty test images, and the labels of all of them
let benches = []; // of the module on show: the document's, and its twin's

// A text of the module on show, or one of all modules.
const text = (key, values = {}) => {
  const own = texts[state.language];
  return (own[`${state.module}.${key}`] ?? own[key] ?? "").replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
};
const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
// Whole per cent; with a decimal where rounding alone would make it 0 % or 100 %.
const percent = (share) => `${(100 * share).toFixed(share % 1 && Math.round(100 * share) % 100 === 0 ? 1 : 0)} %`;
const fraction = (weight) => (weight === 1 ? "1" : `1/${Math.round(1 / weight)}`);
const vector = (values, digits) => `(${values.map((v) => number(v, digits)).join(", ")})`;
const className = (k) => (modules[state.module].dataset === "fashion_mnist" ? text(`fashion.${k}`) : String(k));

function element(tag, parent, content = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = content;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return parent.appendChild(made);
}
// The first row is of heads, and the first column where the rows have names.
function table(target, rows, named = true) {
  target.replaceChildren();
  rows.forEach((row, i) => {
    const line = element("tr", target);
    row.forEach((cell, j) => i && (j || !named)
      ? element("td", line, cell) : element("th", line, cell, {scope: i ? "row" : "col"}));
  });
}
const press = (buttons, isPressed) =>
  [...buttons].forEach((b, i) => b.setAttribute("aria-pressed", String(isPressed(b, i))));

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

function paint(canvas, pixels, column = 0) {
  const context = canvas.getContext("2d");
  const data = context.createImageData(28, 28);
  for (let i = 0; i < 784; i++) {
    data.data.fill(255 * Math.min(Math.max(pixels[i], 0), 1), 4 * i, 4 * i + 3).fill(255, 4 * i + 3, 4 * i + 4);
  }
  context.putImageData(data, 30 * column, 0);
}
const paintImage = (canvas, image) => paint(canvas, Array.from(image, (v) => v / 255));
