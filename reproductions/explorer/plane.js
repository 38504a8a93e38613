// A plane of codes: points, the prior, q(z|x), the document's grid, and the z that one drags.
const REACH = 4; // of the view "prior", in standard deviations
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]; // between numbers of an axis

// host.scene() gives what there is to see, host.move(point) is told where z is dragged to,
// host.zoom(factor, dx, dy) how the view is to change: all in units of z.
function makePlane(canvas, host) {
  const context = canvas.getContext("2d");
  const points = document.createElement("canvas"); // they change seldom, z changes all the time
  const view = {x: 0, y: 0, half: REACH};
  const fingers = new Map();
  let [drawnFor, side, ratio] = ["", 0, 1];

  const toX = (z) => ((z - view.x) / view.half + 1) * (side / 2);
  const toY = (z) => (1 - (z - view.y) / view.half) * (side / 2);
  const colour = (name) => getComputedStyle(canvas).getPropertyValue(`--${name}`).trim();

  // scale [[a, 0], [b, c]] takes the unit circle to the ellipse of one standard deviation.
  function ellipse(mean, scale, radius) {
    context.beginPath();
    for (let i = 0; i <= 60; i++) {
      const [u, v] = [radius * Math.cos((i * Math.PI) / 30), radius * Math.sin((i * Math.PI) / 30)];
      context.lineTo(toX(mean[0] + scale[0][0] * u), toY(mean[1] + scale[1][0] * u + scale[1][1] * v));
    }
    context.stroke();
  }
  function axes(ctx) {
    const step = STEPS.find((s) => s * (side / 100) > view.half) || 200;
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    Object.assign(ctx, {strokeStyle: colour("rule"), fillStyle: colour("muted"), lineWidth: 1});
    ctx.font = "11px system-ui, sans-serif";
    for (const [centre, across] of [[view.x, true], [view.y, false]]) {
      for (let n = Math.ceil((centre - view.half) / step); n * step < centre + view.half; n++) {
        const z = n * step;
        const at = Math.round(across ? toX(z) : toY(z)) + 0.5;
        const [x, y, width, height, left, base] = across ? [at, 0, 0, side, at + 3, side - 5] : [0, at, side, 0, 4, at - 4];
        ctx.strokeRect(x, y, width, height);
        const label = number(z, digits);
        const fits = at > 16 && at < side - 16 && left + ctx.measureText(label).width < side;
        if (fits) ctx.fillText(label, left, base);
      }
    }
  }
  function tiles(ctx, grid) {
    ctx.imageSmoothingEnabled = false;
    for (const {x, y, left, right, bottom, top, picture} of grid) {
      if (!picture) ctx.fillRect(toX(x) - 1, toY(y) - 1, 2, 2);
      else ctx.drawImage(picture, toX(left), toY(top), toX(right) - toX(left), toY(bottom) - toY(top));
    }
  }
  function drawPoints(scene) {
    points.width = points.height = side * ratio;
    const ctx = points.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.fillStyle = colour("plane");
    ctx.fillRect(0, 0, side, side);
    axes(ctx);
    ctx.fillStyle = colour("muted");
    if (scene.grid) tiles(ctx, scene.grid);
    const near = [];
    for (let i = 0; i < scene.codes[0].length; i++) {
      if (!scene.visible.has(scene.labels[i])) continue;
      const [x, y] = [toX(scene.codes[0][i]), toY(scene.codes[1][i])];
      if (x > -9 && y > -9 && x < side + 9 && y < side + 9) near.push([x, y, scene.labels[i]]);
    }
    const colours = Array.from({length: 10}, (_, k) => colour(`class-${k}`));
    const asText = scene.numerals && near.length < 400; // near enough to tell them without colour
    ctx.globalAlpha = asText ? 1 : scene.grid ? 0.3 : 0.6;
    ctx.font = "600 11px system-ui, sans-serif";
    const size = side < 260 ? 1.5 : 2.2;
    for (const [x, y, label] of near) {
      ctx.fillStyle = colours[label];
      if (asText) ctx.fillText(label, x - 3, y + 4);
      else ctx.fillRect(x - size / 2, y - size / 2, size, size);
    }
    ctx.globalAlpha = 1;
  }
  function names(scene) {
    const apart = scene.means.map(([x, y]) => Math.hypot(toX(x) - toX(scene.means[0][0]), toY(y) - toY(scene.means[0][1])));
    if (Math.max(...apart) < 60) return; // no room
    context.textAlign = "center";
    context.font = `600 ${side < 260 || !scene.numerals ? 10 : 13}px system-ui, sans-serif`;
    context.fillStyle = colour("ink");
    Object.assign(context, {strokeStyle: colour("plane"), lineWidth: 4, lineJoin: "round"});
    const placed = []; // a name moves down until it lies on no other
    scene.means.forEach((mean, k) => {
      if (!scene.visible.has(k)) return;
      const name = scene.names[k];
      const [x, half] = [toX(mean[0]), context.measureText(name).width / 2];
      let y = toY(mean[1]) + 4;
      while (placed.some((p) => Math.abs(p.x - x) < p.half + half && Math.abs(p.y - y) < 11)) y += 1;
      placed.push({x, y, half});
      context.strokeText(name, x, y);
      context.fillText(name, x, y);
    });
    context.textAlign = "start";
  }
  function draw() {
    const box = canvas.clientWidth;
    if (!box) return;
    const scene = host.scene();
    if (side !== box || ratio !== devicePixelRatio) canvas.width = canvas.height = box * devicePixelRatio;
    [side, ratio] = [box, devicePixelRatio];
    const key = [view.x, view.y, view.half, side, ratio, ...scene.visible, scene.key].join();
    if (key !== drawnFor) drawPoints(scene);
    drawnFor = key;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(points, 0, 0);
    context.scale(ratio, ratio);
    context.lineWidth = 1.2;
    context.setLineDash([4, 4]);
    context.strokeStyle = colour("ink");
    for (const radius of [1, 2, 3]) ellipse(scene.prior, [[1, 0], [0, 1]], radius);
    context.setLineDash([]);
    names(scene);
    context.strokeStyle = colour("accent");
    context.lineWidth = 2;
    if (scene.q) for (const radius of [1, 2]) ellipse(scene.q.mean, scene.q.scale, radius);
    const [x, y] = [toX(scene.z[0]), toY(scene.z[1])];
    for (const [width, name] of [[5, "plane"], [2, "accent"]]) {
      Object.assign(context, {lineWidth: width, strokeStyle: colour(name)});
      context.beginPath();
      context.arc(x, y, 7, 0, 2 * Math.PI);
      for (const [i, j] of [[1, 0], [0, 1], [-1, 0], [0, -1]]) {
        context.moveTo(x + 7 * i, y + 7 * j);
        context.lineTo(x + 13 * i, y + 13 * j);
      }
      context.stroke();
    }
  }

  const pointOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [view.x + ((event.clientX - box.x) / box.width * 2 - 1) * view.half,
      view.y + (1 - (event.clientY - box.y) / box.height * 2) * view.half];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    if (fingers.size === 1 && !event.shiftKey) host.move(pointOf(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, event);
    if (fingers.size === 1 && !event.shiftKey) return host.move(pointOf(event));
    const [from, to] = [pointOf(before), pointOf(event)];
    const other = [...fingers.values()].find((f) => f.pointerId !== event.pointerId);
    const apart = (f) => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY) + 1;
    host.zoom(other ? apart(before) / apart(event) : 1, (from[0] - to[0]) / fingers.size,
      (from[1] - to[1]) / fingers.size);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => fingers.delete(e.pointerId));
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return; // else the wheel scrolls the page
    event.preventDefault();
    host.zoom(Math.exp(event.deltaY / 500), 0, 0);
  }, {passive: false});
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
    const step = view.half / (event.shiftKey ? 5 : 40);
    const [x, y] = host.scene().z;
    const points = {ArrowLeft: [x - step, y], ArrowRight: [x + step, y], ArrowUp: [x, y + step],
      ArrowDown: [x, y - step], Home: host.scene().prior};
    const factor = {"+": 0.8, "=": 0.8, "-": 1.25}[event.key];
    if (points[event.key]) host.move(points[event.key]);
    else if (factor) host.zoom(factor, 0, 0);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(canvas);
  return {canvas, draw, view};
}
