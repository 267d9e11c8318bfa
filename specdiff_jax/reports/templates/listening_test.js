"use strict";
const test = JSON.parse(document.getElementById("test").textContent);
const byId = (id) => document.getElementById(id);
const store = "listening " + test.test;
const LABELS = test.matched ? ["bad", "poor", "fair", "good", "excellent"] : ["not at all", "a little", "partly", "mostly", "entirely"];
let state = null, view = null, shown = 0;

// ---- elements and random numbers

function makeElement(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function unmask(body, salt) {  // the inverse of page.mask_bytes
  const raw = atob(body), bytes = new Uint8Array(raw.length), start = parseInt(salt, 16);
  for (let i = 0, word = 0; i < raw.length; i++) {
    if (i % 4 === 0) {
      word = (start + i / 4) >>> 0;
      word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
      word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
      word ^= word >>> 16;
    }
    bytes[i] = raw.charCodeAt(i) ^ (word >>> (8 * (i % 4)));
  }
  return bytes;
}

function makeRandom(seed) {  // mulberry32: numbers in [0, 1), the same for the same seed
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffle(list, draw) {
  const out = list.slice();
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(draw() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

function orderTrials(seed) {  // the trials in this session's order; one kind after the other
  const draw = makeRandom(seed), kinds = [...new Set(test.trials.map((trial) => trial.kind))];
  return kinds.flatMap((kind) => shuffle(test.trials.filter((trial) => trial.kind === kind), draw)).map((trial) => {
    const clips = shuffle(trial.clips, draw);
    return trial.kind === "abx" ? {...trial, clips, x: clips[draw() < 0.5 ? 0 : 1]} : {...trial, clips};
  });
}

// ---- the saved session

function createSession() {
  const [seed, a, b] = crypto.getRandomValues(new Uint32Array(3));
  const session = [a, b].map((word) => word.toString(16).padStart(8, "0")).join("");
  return {test: test.test, seed, session, listener: "", started: new Date().toISOString(), finished: null, answers: [], current: null};
}

function saveState() {
  try { localStorage.setItem(store, JSON.stringify(state)); } catch (error) { /* private windows keep nothing */ }
}

function loadState() {
  try {
    const stored = JSON.parse(localStorage.getItem(store));
    return stored && stored.test === test.test ? stored : null;
  } catch (error) { return null; }
}

// ---- sound

let context = null, voice = null;
const buffers = new Map();

function loadBuffer(id) {
  if (!buffers.has(id)) {
    const bytes = unmask(test.clips[id], id), pcm = new DataView(bytes.buffer);
    const frames = bytes.length / 2 / test.channels, buffer = context.createBuffer(test.channels, frames, test.rate);
    for (let c = 0; c < test.channels; c++) {
      const wave = buffer.getChannelData(c);
      for (let i = 0; i < frames; i++) wave[i] = pcm.getInt16(2 * (i * test.channels + c), true) / 32768;
    }
    buffers.set(id, buffer);
  }
  return buffers.get(id);
}

function measurePosition() {
  return voice ? (context.currentTime - voice.start) % voice.source.buffer.duration : 0;
}

function stopSound() {
  if (!voice) return;
  const {source, gain, part} = voice, now = context.currentTime;
  gain.gain.setTargetAtTime(0, now, 0.004);  // no click
  source.stop(now + 0.03);
  part.element.classList.remove("playing");
  part.element.style.setProperty("--at", 0);
  part.button.setAttribute("aria-pressed", "false");
  voice = null;
}

function playPart(part) {
  context = context || new AudioContext();
  context.resume();
  const from = test.matched ? measurePosition() : 0;  // matched clips are compared at the same position
  stopSound();
  const source = context.createBufferSource(), gain = context.createGain();
  source.buffer = loadBuffer(part.clip);
  source.loop = true;
  source.connect(gain).connect(context.destination);
  source.start(0, from);
  voice = {source, gain, part, start: context.currentTime - from};
  part.element.classList.add("playing", "played");
  part.button.setAttribute("aria-pressed", "true");
  state.current.plays[part.name] = (state.current.plays[part.name] || 0) + 1;
  view.last = part;
  requestAnimationFrame(showPosition);
  updateTrial();
}

function showPosition() {
  if (!voice) return;
  voice.part.element.style.setProperty("--at", measurePosition() / voice.source.buffer.duration);
  requestAnimationFrame(showPosition);
}

function togglePart(part) {
  if (voice && voice.part === part) stopSound(); else playPart(part);
}

// ---- a trial

function addPart(element, button, name, clip) {
  const one = {element, button, name, clip};
  if (state.current.plays[name]) element.classList.add("played");
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", (event) => {
    togglePart(one);
    if (one.slider && event.detail) one.slider.focus({preventScroll: true});  // arrows at once
  });
  view.parts.push(one);
  return one;
}

function setRating(one, value) {
  state.current.ratings[one.name] = value;
  one.slider.value = value;
  showRating(one);
  updateTrial();
}

function showRating(one) {
  const value = state.current.ratings[one.name];
  one.element.classList.toggle("unrated", value === undefined);
  one.output.textContent = value === undefined ? "\u2013" : value;
  one.slider.setAttribute("aria-valuetext", value === undefined ? "not rated yet" : value + ", " + LABELS[Math.min(4, Math.floor(value / 20))]);
}

function makeRatingRow(clip, index) {
  const number = String(index + 1), button = makeElement("button", {class: "play", type: "button", "aria-label": "Play clip " + number}, number);
  const slider = makeElement("input", {type: "range", min: 0, max: 100, step: 1, value: 50, "aria-label": "Rating of clip " + number});
  const output = makeElement("output", {"aria-hidden": "true"}), row = makeElement("div", {class: "row"}, button, slider, output);
  const one = Object.assign(addPart(row, button, number, clip), {slider, output});
  slider.value = state.current.ratings[number] === undefined ? 50 : state.current.ratings[number];
  slider.addEventListener("input", () => setRating(one, Number(slider.value)));
  slider.addEventListener("focus", () => { view.active = one; });
  slider.addEventListener("pointerup", () => setRating(one, Number(slider.value)));  // a tap on 50 counts too
  showRating(one);
  return row;
}

function layOutMushra(trial) {
  const rows = trial.clips.map(makeRatingRow);
  const scale = makeElement("div", {class: "scale", "aria-hidden": "true"}, makeElement("div", {}, ...LABELS.map((label) => makeElement("span", {}, label))));
  if (trial.open) {
    const button = makeElement("button", {class: "play", type: "button"}, "Reference");
    const row = makeElement("div", {class: "row open"}, button, makeElement("span", {}, "what the others should sound like"));
    addPart(row, button, "0", trial.open);
    rows.unshift(row);
  }
  if (trial.open) rows.splice(1, 0, scale); else rows.unshift(scale);
  byId("question").textContent = test.question;
  byId("hint").textContent = "Play every clip, and rate it. " +
    (trial.open ? "One of them is the reference itself." : "One of them is a real recording, one a muffled one.");
  byId("keys").append(...listKeys([[trial.open ? "0 1 2 \u2026" : "1 2 \u2026", "play"], ["Space", "stop, play"], ["\u2190 \u2192", "rate (with Shift by 10)"], ["Enter", "next"]]));
  return rows;
}

function layOutAbx(trial) {
  const labels = ["A", "B", "X"], clips = [...trial.clips, trial.x];
  const buttons = labels.map((label, index) => {
    const button = makeElement("button", {type: "button", "aria-label": "Play " + label}, label, makeElement("small", {}, "play"));
    addPart(button, button, label, clips[index]);
    return button;
  });
  const radios = ["A", "B"].map((label) => {
    const radio = makeElement("input", {type: "radio", name: "answer", value: label});
    radio.checked = state.current.answer === label;
    radio.addEventListener("change", () => { state.current.answer = label; updateTrial(); });
    return radio;
  });
  view.radios = radios;
  const lines = radios.map((radio) => makeElement("label", {}, radio, "X is " + radio.value));
  byId("question").textContent = "Which one is X: A or B?";
  byId("hint").textContent = "X is exactly one of the two. If you are not sure, guess.";
  byId("keys").append(...listKeys([["1 2 3", "play A, B, X"], ["Space", "stop, play"], ["\u2190 \u2192", "answer A, B"], ["Enter", "next"]]));
  return [makeElement("div", {class: "choices"}, ...buttons), makeElement("fieldset", {}, makeElement("legend", {}, "Your answer"), ...lines)];
}

function listKeys(pairs) {
  return pairs.flatMap(([key, does], index) => [index ? " \u00a0 " : "", makeElement("kbd", {}, key), " " + does]);
}

function listMissing() {  // one line on what the trial still needs, else empty
  const current = state.current, unplayed = view.parts.filter((one) => !current.plays[one.name]).map((one) => one.name === "0" ? "the reference" : one.name);
  const unrated = view.parts.filter((one) => one.slider && current.ratings[one.name] === undefined).map((one) => one.name);
  const lines = [];
  if (unplayed.length) lines.push("play " + unplayed.join(", "));
  if (unrated.length) lines.push("rate " + unrated.join(", "));
  if (view.radios && !current.answer) lines.push("choose A or B");
  return lines.length ? "Still to do: " + lines.join("; ") + "." : "";
}

function updateTrial() {
  const now = Date.now();
  state.current.seconds += Math.min(120, (now - shown) / 1000);  // longer pauses do not count
  shown = now;
  saveState();
  const todo = listMissing();
  byId("next").setAttribute("aria-disabled", todo ? "true" : "false");
  byId("status").textContent = todo;
}

function finishTrial() {
  if (listMissing()) {
    byId("status").textContent = listMissing();
    return;
  }
  updateTrial();
  stopSound();
  buffers.clear();
  state.answers.push(state.current);
  state.current = null;
  if (state.answers.length === test.trials.length) state.finished = new Date().toISOString();
  saveState();
  showScreen();
}

// ---- the screens

function showScreen() {
  for (const id of ["start", "trial", "end"]) byId(id).hidden = true;
  if (state && state.finished) return showEnd();
  if (!state || !state.running) return showStart();
  const trials = orderTrials(state.seed), done = state.answers.length, trial = trials[done];
  state.current = state.current || {plays: {}, ratings: {}, answer: null, seconds: 0};
  view = {parts: [], last: null, active: null, radios: null};
  shown = Date.now();
  byId("kind").textContent = trial.kind === "abx" ? "Comparing" : "Rating";
  byId("count").textContent = "Trial " + (done + 1) + " of " + trials.length;
  byId("progress").max = trials.length;
  byId("progress").value = done;
  byId("next").textContent = done + 1 === trials.length ? "Finish" : "Next";
  byId("keys").replaceChildren();
  byId("stage").replaceChildren(...(trial.kind === "abx" ? layOutAbx(trial) : layOutMushra(trial)));
  byId("trial").hidden = false;
  updateTrial();
  byId("question").focus({preventScroll: true});
  scrollTo(0, 0);
}

function showStart() {
  const kinds = test.trials.map((trial) => trial.kind), rate = kinds.filter((kind) => kind === "mushra").length;
  const lines = [];
  if (rate) lines.push(rate + (rate > 1 ? " times" : " time") + " you hear a few short clips and rate each of them from 0 to 100.");
  if (kinds.length > rate) lines.push(kinds.length - rate + (kinds.length - rate > 1 ? " times" : " time") + " you hear clips A, B and X, and choose which of the two X is.");
  byId("instructions").replaceChildren(...lines.map((line) => makeElement("p", {}, line)));
  const done = state ? state.answers.length : 0;
  byId("resume").hidden = !state;
  byId("begin").hidden = Boolean(state);
  byId("resume").querySelector("p").textContent = "A session was left at trial " + (done + 1) + " of " + kinds.length + (state && state.listener ? " by " + state.listener : "") + ".";
  byId("start").hidden = false;
}

function collectResults() {  // the result file: answers by set name
  const key = JSON.parse(new TextDecoder().decode(unmask(test.key, test.salt)));
  const set = (id) => key.sets[key.clips[id][1]], place = (id) => key.clips[id][2];
  const trials = orderTrials(state.seed).map((trial, index) => {
    const {plays, ratings, answer, seconds} = state.answers[index], kind = trial.kind, [a, b] = trial.clips;
    const head = {kind, clip: place(a), seconds: Math.round(10 * seconds) / 10};
    if (kind === "abx") return {...head, a: set(a), b: set(b), x: set(trial.x), answer: set(answer === "A" ? a : b), plays};
    return {...head, ratings: trial.clips.map((id, position) => {
      const name = String(position + 1), role = key.clips[id][0];
      return {role, set: role === "set" ? set(id) : null, score: ratings[name], position: position + 1, plays: plays[name]};
    })};
  });
  const {session, seed, listener, started, finished} = state;
  return {format: test.format, test: test.test, session, seed, listener, started, finished, matched: test.matched, sets: key.sets, trials};
}

function showEnd() {
  const result = JSON.stringify(collectResults(), null, 1), link = byId("download");
  link.href = URL.createObjectURL(new Blob([result], {type: "application/json"}));
  link.download = "listening-" + state.session + ".json";
  byId("result").value = result;
  byId("copied").textContent = "";
  byId("end").hidden = false;
  byId("thanks").focus({preventScroll: true});
  if (!state.delivered) link.click();
  state.delivered = true;
  saveState();
}

async function copyResult() {
  const area = byId("result");
  area.select();
  try { await navigator.clipboard.writeText(area.value); } catch (error) { document.execCommand("copy"); }  // a local file has no clipboard
  byId("copied").textContent = "Copied.";
}

// ---- keys

function handleKey(event) {
  if (byId("trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  const onButton = event.target.tagName === "BUTTON", key = event.key;
  const named = view.parts.find((one, index) => view.radios ? String(index + 1) === key : one.name === key);
  const step = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[key];
  if (named) {
    playPart(named);
    if (named.slider) named.slider.focus({preventScroll: true});
    named.element.scrollIntoView({block: "nearest"});
  } else if (key === " " && !onButton) {
    if (voice) stopSound(); else playPart(view.last || view.parts[0]);
  } else if (key === "Enter" && !onButton) {
    finishTrial();
  } else if (step && view.radios) {
    const radio = view.radios[step < 0 ? 0 : 1];
    radio.focus();
    radio.checked = true;
    radio.dispatchEvent(new Event("change"));
  } else if (step && view.active) {
    const before = state.current.ratings[view.active.name], from = before === undefined ? 50 : before;
    setRating(view.active, Math.max(0, Math.min(100, from + step * (event.shiftKey ? 10 : 1))));
    view.active.slider.focus({preventScroll: true});
  } else return;
  event.preventDefault();
}

function beginSession() {
  state = createSession();
  state.listener = byId("listener").value.trim();
  state.running = true;
  saveState();
  showScreen();
}

function resetSession() {
  state = null;
  saveState();
  byId("listener").value = "";
  showScreen();
}

document.addEventListener("keydown", handleKey);
byId("next").addEventListener("click", finishTrial);
byId("begin").addEventListener("submit", (event) => { event.preventDefault(); beginSession(); });
byId("go-on").addEventListener("click", () => { state.running = true; showScreen(); });
byId("start-over").addEventListener("click", resetSession);
byId("copy").addEventListener("click", copyResult);
byId("again").addEventListener("click", resetSession);
state = loadState();
if (state) state.running = false;
showScreen();
