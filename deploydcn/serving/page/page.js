"use strict";
// Everything that comes from the server or a file is shown by textContent and attributes, never as HTML. Addresses are relative: the page
// works behind a proxy that puts it under a path.

const KEPT = 100;  // requests that the latency is told of
const PARTS = [["decode", "image read, letterboxed"], ["model", "queue and model"], ["results", "results read"], ["server", "server, all of it"], ["roundTrip", "round trip"]];
const HUES = ["#0072b2", "#a83c00", "#00664b", "#8a4a7d", "#7a5c00", "#3b4cc0", "#b0003a", "#2f6f8f"];  // dark enough for white text
const COARSE = 8;  // steps of an arrow key with shift

const $ = (id) => document.getElementById(id);
const state = { file: null, address: "", answer: null, times: [], repeating: false, running: null, layers: [], points: null, aim: null, sampling: false };

// --------------------------------------------------------------------------------------------------------- talking to the server
class Failure extends Error {
  constructor(text, status) { super(text); this.status = status; }
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  let response, text;
  try {
    response = await fetch(path, { ...options, headers: token ? { authorization: `Bearer ${token}` } : {} });
    text = await response.text();
  } catch (error) {
    throw new Failure(`the server does not answer: ${error.message}`, 0);
  }
  let body = null;
  try { body = JSON.parse(text); } catch { /* told below */ }
  if (!response.ok) throw new Failure(body?.error ?? `the server answers ${response.status}`, response.status);
  if (body === null) throw new Failure("the server's answer is no JSON", response.status);
  return body;
}

function fail(error) {
  if (!(error instanceof Failure)) { $("error").textContent = "a bug in the page; the browser's console says more"; throw error; }
  $("error").textContent = error.message;
  if (error.status === 401) { $("access").open = true; $("token").focus(); }
}

const chosen = () => $("model").selectedOptions[0]?.dataset;

function address(suffix = "", query = {}) {
  const { name, version } = chosen();
  return `demo/${encodeURIComponent(name)}${suffix}?${new URLSearchParams({ version, ...query })}`;
}

// ------------------------------------------------------------------------------------------------------------------ making things
const SVG = "http://www.w3.org/2000/svg";

function make(parent, tag, attributes = {}, text = "") {
  const item = parent instanceof SVGElement ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) item.setAttribute(key, value);
  item.textContent = text;
  parent.append(item);
  return item;
}

function fillRows(body, rows, heading = false) {
  body.replaceChildren();
  for (const row of rows) {
    const line = make(body, "tr");
    row.forEach((cell, at) => make(line, heading || at === 0 ? "th" : "td", { scope: heading ? "col" : "row" }, String(cell)));
  }
}

const short = (value) => value === undefined || value === null ? "" : Number(value.toPrecision(4)).toString();
const colour = (number) => HUES[((number % HUES.length) + HUES.length) % HUES.length];
const pixel = () => (state.answer ? state.answer.image[1] / Math.max($("picture").clientWidth, 1) : 1);  // of the screen, in the image's

// ------------------------------------------------------------------------------------------------------------------------- models
async function listModels() {
  const before = JSON.stringify({ ...chosen() });
  const rows = await ask("v2/repository/index", { method: "POST", body: '{"ready": true}' });
  $("model").replaceChildren();
  for (const { name, version } of rows) {
    const several = rows.filter((row) => row.name === name).length > 1;
    const option = make($("model"), "option", {}, several ? `${name}, version ${version}` : name);
    Object.assign(option.dataset, { name, version });
    option.selected = JSON.stringify({ ...option.dataset }) === before;
  }
  await changeModel();
}

async function changeModel() {
  forget();
  $("signature").textContent = "";
  const model = chosen();
  if (!model) throw new Failure("no model is loaded", 200);
  const tensors = await ask(`v2/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}`);
  const listed = (items) => items.map((item) => `${item.name} ${item.datatype} ${item.shape.map((size) => (size < 0 ? "?" : size)).join("x")}`).join(", ");
  $("signature").textContent = `${listed(tensors.inputs)} \u2192 ${listed(tensors.outputs)}`;
  if (state.file) await run();
}

/* What was shown of another model or image. */
function forget() {
  Object.assign(state, { answer: null, times: [], layers: [], points: null, aim: null });
  for (const id of ["boxes", "points", "layer"]) $(id).replaceChildren();
  for (const id of ["latency", "found", "outputs", "overlay", "layers", "layer-controls"]) $(id).hidden = true;
  $("caption").textContent = "";
  $("error").textContent = "";
}

// ------------------------------------------------------------------------------------------------------------------------- images
async function choose(file) {
  state.repeating = false;
  forget();
  state.file = file;
  URL.revokeObjectURL(state.address);
  state.address = URL.createObjectURL(file);
  $("picture").src = state.address;
  $("picture").alt = file.name;
  $("picture").hidden = false;
  $("hint").hidden = true;
  await run();
}

/* One request; all that is shown of it. */
async function run() {
  if (!chosen()) return;
  document.body.dataset.state = "busy";
  const { file } = state, { name } = chosen();
  const begin = performance.now();
  const answer = await ask(address(), { method: "POST", body: file });
  if (file !== state.file || name !== chosen().name) return;  // another was chosen meanwhile
  state.times.push({ ...answer.milliseconds, roundTrip: performance.now() - begin });
  state.times.splice(0, state.times.length - KEPT);
  const first = state.answer === null;
  state.answer = answer;
  $("error").textContent = "";
  $("repeat").disabled = false;
  show(answer);
  showTimes();
  if (first) {
    $("layers").hidden = false;
    if ($("layers").open) await listLayers();
  }
}

function show(answer) {
  const [height, width] = answer.image;
  $("overlay").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("overlay").setAttribute("preserveAspectRatio", "none");
  $("overlay").removeAttribute("hidden");
  $("caption").textContent = `${width}x${height} pixels; the model sees ${answer.input[1]}x${answer.input[0]}.`;
  showFound();
  $("outputs").hidden = false;
  $("outputs").open ||= !answer.detections && !answer.classes;
  fillRows($("output-head"), [["output", "type", "shape", "least", "mean", "most", "not finite"]], true);
  fillRows($("output-rows"), answer.outputs.map((item) =>
    [item.name, item.datatype, item.shape.join("x"), short(item.min), short(item.mean), short(item.max), item.not_finite]));
}

function shownDetections() {
  return (state.answer?.detections ?? []).filter(({ score }) => score >= $("least").value);
}

/* Boxes or classes, in the image and in a table. */
function showFound() {
  drawBoxes();
  const { detections, classes } = state.answer;
  $("found").hidden = !detections && !classes;
  $("least-label").hidden = !detections;
  $("least-value").textContent = $("least").value;
  const shown = shownDetections();
  $("found-title").textContent = classes ? "most likely classes" : shown.length === detections?.length ? `${shown.length} detections` : `${shown.length} of ${detections?.length} detections`;
  fillRows($("found-head"), [["class", "score", ...(classes ? [] : ["x1", "y1", "x2", "y2"])]], true);
  fillRows($("found-rows"), (classes ?? shown).map((row) => [row.label, row.score.toFixed(3), ...(row.box ?? []).map((at) => at.toFixed(1))]));
}

function drawBoxes() {
  const layer = $("boxes"), unit = pixel();
  layer.replaceChildren();
  for (const { box: [x1, y1, x2, y2], score, label, class: number } of shownDetections()) {
    const shade = colour(number), size = 12 * unit;
    make(layer, "rect", { class: "box", x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), stroke: shade });
    const text = make(layer, "text", { x: Math.max(0, x1) + 3 * unit, y: Math.max(size, y1 - 3 * unit), "font-size": size }, `${label} ${score.toFixed(2)}`);
    const back = make(layer, "rect", { x: Math.max(0, x1), y: Math.max(0, y1 - 3 * unit - size), width: text.getComputedTextLength() + 6 * unit, height: 1.3 * size, fill: shade });
    text.before(back);
  }
}

// ------------------------------------------------------------------------------------------------------------------------ latency
function showTimes() {
  $("latency").hidden = false;
  const count = state.times.length;
  $("count").textContent = count === 1 ? "1 request" : count === KEPT ? `last ${KEPT} requests` : `${count} requests`;
  fillRows($("times"), PARTS.map(([key, label]) => {
    const sorted = state.times.map((times) => times[key]).sort((a, b) => a - b);
    const median = (sorted[Math.floor((count - 1) / 2)] + sorted[Math.ceil((count - 1) / 2)]) / 2;
    return [label, ...[state.times[count - 1][key], sorted[0], median].map((value) => value.toFixed(1))];
  }));
  const most = Math.max(...state.times.map((times) => times.roundTrip));
  $("scale").textContent = `0 to ${most.toFixed(1)} ms`;
  for (const [id, key] of [["plot-round-trip", "roundTrip"], ["plot-model", "model"]]) {
    $(id).setAttribute("points", state.times.map((times, at) =>
      `${(300 * at / Math.max(count - 1, 1)).toFixed(1)},${(58 - 56 * times[key] / most).toFixed(1)}`).join(" "));
  }
}

async function repeat() {
  state.repeating = !state.repeating;
  $("repeat").setAttribute("aria-pressed", state.repeating);
  try {
    while (state.repeating) await run();
  } finally {
    state.repeating = false;
    $("repeat").setAttribute("aria-pressed", false);
  }
}

// ------------------------------------------------------------------------------------------------------------------------- layers
async function listLayers() {
  const { file } = state;
  $("layer-controls").hidden = true;
  $("layers-hint").textContent = "The model is opened once more, to watch its layers ...";
  let layers;
  try {
    layers = await ask(address("/layers"), { method: "POST", body: file });
  } catch (error) {
    $("layers-hint").textContent = error.message;
    return;
  }
  if (file !== state.file) return;
  state.layers = layers;
  $("layer").replaceChildren();
  layers.forEach((item, at) => make($("layer"), "option", { value: at }, `${item.name} (${item.operator})`));
  $("layers-hint").textContent = layers.length === 0 ? "This model has no deformable layer."
    : "Click the image, or focus it and use the arrow keys: the cross is an output pixel of the layer, a ring is a point that it samples, the fuller the more it weighs.";
  $("layer-controls").hidden = layers.length === 0;
  $("overlay").classList.toggle("aiming", layers.length > 0);
  changeLayer();
}

function changeLayer() {
  const layer = state.layers[$("layer").value];
  if (!layer) return;
  $("group").replaceChildren();
  for (let group = 0; group < layer.groups; group++) make($("group"), "option", {}, String(group));
  $("group-label").hidden = layer.groups === 1;
  state.points = null;
  drawPoints();
  $("point-info").textContent = `${layer.attention ? "queries" : "output"} ${layer.output.join("x")}${layer.exact ? "" : "; where it lies over the image is a guess"}`;
  if (state.aim) act(sample);
}

/* Ask for the points at state.aim; of what is aimed at meanwhile, the last is asked for next. */
async function sample() {
  if (state.sampling) { state.sampling = "again"; return; }
  state.sampling = true;
  document.body.dataset.state = "busy";
  try {
    do {
      state.sampling = true;
      const [y, x] = state.aim, layer = $("layer").value;
      const { file } = state;
      const found = await ask(address("/layers", { layer, y, x, group: $("group").value || 0 }), { method: "POST", body: file });
      if (file !== state.file || !state.layers.length) return;
      state.points = { ...found, layer: state.layers[layer] };
      // Queries lie anywhere: arrow keys that start at one's own place would not leave it.
      if (state.sampling !== "again" && !state.layers[layer].attention) state.aim = found.centre;
      drawPoints();
    } while (state.sampling === "again" && state.aim);
    $("error").textContent = "";
  } finally {
    state.sampling = false;
  }
}

function drawPoints() {
  const drawing = $("points"), unit = pixel(), reach = 7 * unit;
  drawing.replaceChildren();
  if (!state.points) return;
  const { pixel: at, centre: [y, x], points, not_finite: lost, layer } = state.points;
  const weights = points.map((point) => Math.abs(point.weight));
  // Masks are parts of 1; attention weights share 1 among all points.
  const full = layer.attention ? Math.max(...weights, 1e-9) : Math.max(...weights, 1);
  for (const point of points) {
    const place = { cx: point.x, cy: point.y, r: 5 * unit };
    make(drawing, "circle", { class: "ring", ...place });
    make(drawing, "circle", { class: "dot", ...place, "fill-opacity": Math.abs(point.weight) / full });
  }
  make(drawing, "path", { d: `M${x - reach} ${y}H${x + reach}M${x} ${y - reach}V${y + reach}` });
  const outside = points.filter((point) => point.share === 0).length;
  $("point-info").textContent = `${layer.attention ? "query" : "pixel"} ${at.join(",")} of ${layer.output.join("x")}: ${points.length} points`
    + (outside ? `, ${outside} outside of the map` : "") + (lost ? `, ${lost} not finite` : "")
    + `; weights ${short(Math.min(...points.map((point) => point.weight)))} to ${short(Math.max(...points.map((point) => point.weight)))}`;
}

function aim(y, x) {
  if (!state.layers.length) return;
  const [height, width] = state.answer.image;
  state.aim = [Math.min(Math.max(y, 0), height), Math.min(Math.max(x, 0), width)];
  act(sample);
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function move(event) {
  const direction = MOVES[event.key], layer = state.layers[$("layer").value];
  if (!direction || !layer) return;
  event.preventDefault();
  const [y, x] = state.aim ?? state.answer.image.map((side) => side / 2), steps = event.shiftKey ? COARSE : 1;
  aim(y + steps * direction[0] * layer.step[0], x + steps * direction[1] * layer.step[1]);
}

// ------------------------------------------------------------------------------------------------------------------------- events
/* Runs what an event asks for; what fails is told. data-state tells whether something is under way. */
async function act(work, ...given) {
  document.body.dataset.state = "busy";
  try { await work(...given); } catch (error) { fail(error); } finally { if (!state.repeating && !state.sampling) document.body.dataset.state = "ready"; }
}

$("model").addEventListener("change", () => act(changeModel));
$("file").addEventListener("change", () => $("file").files[0] && act(choose, $("file").files[0]));
$("repeat").addEventListener("click", () => act(repeat));
$("least").addEventListener("input", showFound);
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  $("error").textContent = "";
  $("access").open = false;
  act(listModels);
});
$("layers").addEventListener("toggle", () => $("layers").open && state.answer && !state.layers.length && act(listLayers));
$("layer").addEventListener("change", () => changeLayer());
$("group").addEventListener("change", () => state.aim && act(sample));
$("overlay").addEventListener("keydown", move);
$("overlay").addEventListener("click", (event) => {
  if (!state.answer) return;
  const box = $("overlay").getBoundingClientRect(), [height, width] = state.answer.image;
  aim((event.clientY - box.top) / box.height * height, (event.clientX - box.left) / box.width * width);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) act(choose, event.dataTransfer.files[0]);
  });
}
new ResizeObserver(() => { drawBoxes(); drawPoints(); }).observe($("stage"));
act(listModels);
