"use strict";
// Asks the server again whenever an input changes or is switched, and shows what the model makes of what is left.

const SHOWN = 6; // classes
const PAUSE = 250; // milliseconds without a change before the server is asked
const inputs = []; // {name, on: () => bool, fields: [name, ...], values: () => [[field, value], ...]}
let model, timer, asked = 0;

const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const number = (x) => Number(x).toLocaleString("en", { maximumSignificantDigits: 5 });

// --- inputs ----------------------------------------------------------------------------------------------------------

const FORMS = {
  text: (fields) => plain(fields, (field) => make("textarea", { rows: 4, maxLength: model.limits.characters })),
  tabular: (fields) => plain(fields, (field) => {
    if (!field.levels) return make("input", { type: "text", inputMode: "text", autocomplete: "off" });
    return make("select", {}, make("option", { value: "", textContent: "–" }), ...field.levels.map((x) => make("option", { textContent: x })));
  }),
  image: ([field]) => file(field, "image/*", false, (url) => make("img", { src: url, alt: "what was chosen" })),
  audio: ([field]) => file(field, "audio/*", false, (url) => make("audio", { src: url, controls: true }), true),
  video: ([field]) => file(field, "video/*,image/*", true, (url, type) =>
    type.startsWith("image/") ? make("img", { src: url, alt: "a frame" }) : make("video", { src: url, controls: true, muted: true })),
};

function plain(fields, control) {
  const controls = fields.map((field) => [field.name, control(field)]);
  const labels = controls.map(([name, x]) => make("label", { className: "field" }, make("span", { textContent: name }), x));
  for (const [name, x] of controls) { x.name = name; x.addEventListener("input", change); }
  return {
    body: make("div", { className: fields.length > 1 ? "grid" : "" }, ...labels),
    values: () => controls.filter(([, x]) => x.value.trim() !== "").map(([name, x]) => [name, x.value]),
  };
}

function file(field, accept, several, preview, records = false) {
  let chosen = [];
  const shown = make("div");
  const control = make("input", { type: "file", accept, multiple: several, name: field.name });
  const drop = make("div", { className: "drop" });
  const take = (files) => {
    chosen = [...files].slice(0, several ? undefined : 1);
    shown.replaceChildren(...chosen.map((x) => preview(URL.createObjectURL(x), x.type)));
    change();
  };
  control.addEventListener("change", () => take(control.files));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files); });
  const label = make("label", { className: "field" }, make("span", { textContent: `${field.name}: drop a file here, or` }), control);
  drop.append(label);
  if (records && navigator.mediaDevices) drop.append(recorder(take));
  const clear = make("button", { type: "button", textContent: "Remove" });
  clear.addEventListener("click", () => { control.value = ""; take([]); });
  drop.append(clear, shown);
  return { body: drop, values: () => chosen.map((x) => [field.name, x]) };
}

function recorder(take) {
  const button = make("button", { type: "button", textContent: "Record" });
  button.setAttribute("aria-pressed", "false");
  let recording = null;
  button.addEventListener("click", async () => {
    if (recording) { recording.stop(); return; }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const parts = [];
      recording = new MediaRecorder(stream);
      recording.addEventListener("dataavailable", (event) => parts.push(event.data));
      recording.addEventListener("stop", async () => {
        stream.getTracks().forEach((track) => track.stop());
        recording = null;
        button.textContent = "Record";
        button.setAttribute("aria-pressed", "false");
        take([await asWav(new Blob(parts))]);
      });
      recording.start();
      button.textContent = "Stop";
      button.setAttribute("aria-pressed", "true");
    } catch (error) { fail(`no sound could be recorded: ${error.message}`); }
  });
  return button;
}

async function asWav(blob) {
  // What a browser records differs from one to the next; WAV is read everywhere.
  const context = new AudioContext(), sound = await context.decodeAudioData(await blob.arrayBuffer());
  await context.close();
  const samples = sound.getChannelData(0), bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((x, n) => bytes.setUint8(at + n, x.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt "); bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true); bytes.setUint16(22, 1, true); bytes.setUint32(24, sound.sampleRate, true);
  bytes.setUint32(28, 2 * sound.sampleRate, true); bytes.setUint16(32, 2, true); bytes.setUint16(34, 16, true);
  text(36, "data"); bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, n) => bytes.setInt16(44 + 2 * n, Math.max(-1, Math.min(1, x)) * 32767, true));
  return new File([bytes], "recording.wav", { type: "audio/wav" });
}

function add(input) {
  const root = document.getElementById("input").content.cloneNode(true).firstElementChild;
  const names = input.fields.map((field) => field.name).join();
  const same = inputs.find((other) => other.fields === names); // sound and pictures of one file
  const form = same ? { body: make("p", { className: "hint", textContent: `of the same file as ${same.name}` }), values: same.values } : FORMS[input.kind](input.fields);
  const box = root.querySelector("input[role=switch]");
  root.querySelector("legend").textContent = input.name + (input.required ? " (required)" : "");
  box.setAttribute("aria-label", `use ${input.name}`);
  box.disabled = input.required;
  box.dataset.input = input.name;
  root.querySelector(".body").append(form.body);
  box.addEventListener("change", () => {
    root.classList.toggle("off", !box.checked);
    root.querySelector(".word").textContent = box.checked ? "on" : "off";
    change();
  });
  document.getElementById("inputs").append(root);
  inputs.push({ name: input.name, fields: names, on: () => box.checked, values: form.values });
}

// --- answers ---------------------------------------------------------------------------------------------------------

function change() {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE);
}

async function ask() {
  const on = inputs.filter((input) => input.on()), off = inputs.filter((input) => !input.on()), mine = ++asked;
  const given = [...new Map(on.map((input) => [input.fields, input.values()])).values()].flat(); // a file of several once
  if (!given.length) { show(null); return; }
  const form = new FormData();
  for (const [name, value] of given) form.append(name, value);
  for (const input of off) form.append("without", input.name);
  try {
    const begin = performance.now();
    const response = await fetch("predict", { method: "POST", body: form });
    const answer = await response.json();
    if (mine !== asked) return; // a later one is on its way
    if (!response.ok) { fail(answer.error); return; }
    show(answer, performance.now() - begin);
  } catch (error) { if (mine === asked) fail(`the server does not answer: ${error.message}`); }
}

function summary(text) {
  const line = document.getElementById("summary");
  line.textContent = text;
  line.hidden = !text;
}

function fail(reason) {
  summary(reason);
  document.getElementById("answer").replaceChildren(make("p", { className: "bad", textContent: reason }));
  mark([]);
}

function show(answer, milliseconds) {
  const box = document.getElementById("answer");
  if (!answer || !answer.used.length) {
    box.replaceChildren(make("p", { className: "hint", textContent: "Nothing is left to answer from: give it something." }));
    mark([]);
    summary("");
    return;
  }
  summary(`${said(answer)} – ${validated(answer)}`);
  box.replaceChildren(
    make("p", { className: "said", textContent: said(answer) }),
    make("p", { className: "used", textContent: `from ${answer.used.join(" and ")}; ${validated(answer)}; ${milliseconds.toFixed(0)} ms` }),
    ...details(answer),
  );
  mark(answer.used);
}

function said(answer) {
  const { prediction, probability } = answer;
  if (model.targets.length) return model.targets.map((name) => `${name}: ${number(model.targets.length > 1 ? prediction[name] : prediction)}`).join(", ");
  if (!model.multi_label) return `${prediction}, ${percent(probability)}`;
  return prediction.length ? prediction.map((name, n) => `${name} ${percent(probability[n])}`).join(", ") : "none of the classes";
}

const validated = (answer) => (answer.quality === null ? "never validated like this" : `validated ${model.metric}: ${percent(answer.quality)}`);

function details(answer) {
  if (model.targets.length) {
    if (!answer.interval) return [];
    const ends = model.targets.length > 1 ? Object.entries(answer.interval) : [[model.targets[0], answer.interval]];
    return ends.map(([name, [low, high]]) => make("p", { textContent: `${name} is between ${number(low)} and ${number(high)}` }));
  }
  const first = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]).slice(0, SHOWN);
  const rows = first.map(([name, x]) => {
    const row = make("li", {}, make("span", { textContent: name }), make("span", { className: "number", textContent: percent(x) }));
    row.style.background = `linear-gradient(to right, var(--bar) ${100 * x}%, transparent ${100 * x}%)`;
    return row;
  });
  const set = answer.prediction_set.length ? [make("p", { className: "hint", textContent: `Prediction set: ${answer.prediction_set.join(", ")}` })] : [];
  return [make("ul", { className: "bars" }, ...rows), ...set];
}

function mark(used) {
  const now = model.inputs.map((x) => x.name).filter((name) => used.includes(name)).join("+");
  for (const row of document.querySelectorAll("#quality tr")) {
    row.classList.toggle("now", row.dataset.pattern === now);
    if (row.dataset.pattern === now) row.setAttribute("aria-current", "true"); else row.removeAttribute("aria-current");
  }
}

// --- the page --------------------------------------------------------------------------------------------------------

async function start() {
  model = await (await fetch("model")).json();
  document.title = model.name;
  document.getElementById("title").textContent = model.name;
  const what = model.targets.length ? model.targets.join(", ") : `${model.classes.length} classes`;
  document.getElementById("about").textContent = `Predicts ${what}, from whatever it is given. Switch an input off, and see what that costs.`;
  document.getElementById("quality-note").textContent = `${model.metric} on test examples, by what was there`;
  model.inputs.forEach(add);
  const rows = Object.entries(model.quality).map(([pattern, value]) => {
    const row = make("tr", {}, make("td", { textContent: pattern.split("+").join(" + ") }), make("td", { textContent: value === null ? "–" : percent(value) }));
    row.dataset.pattern = pattern;
    return row;
  });
  document.querySelector("#quality tbody").append(...rows);
  document.getElementById("inputs").addEventListener("submit", (event) => event.preventDefault());
  document.body.dataset.ready = "true";
}

start().catch((error) => fail(`the server does not answer: ${error.message}`));
