
"use strict";
const $ = (id) => document.getElementById(id);
const AT_ONCE = 3, KEPT = 24, SMALL_PX = 320;
const entries = [];  // newest first: {file, url, state: waiting | busy | done | failed, answer, problem, turn, note}
let shown = null, running = 0, pinned = null;

const milliseconds = (value) => value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`;
const percent = (share) => share < 0.01 ? "under 1 %" : `${Math.round(100 * share)} %`;
const beams = () => document.querySelector("input[name=beams]:checked").value;
const captionOf = (entry) => entry.answer.captions[0];
const say = (text) => { $("heard").textContent = text; };
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// ---- asking the server

async function call(path, options = {}) {
  const key = $("key").value.trim();
  if (key) options.headers = {...options.headers, authorization: `Bearer ${key}`};
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw {title: "The server was not reached", detail: String(error.message || error), status: 0};
  }
  const json = (answer.headers.get("content-type") || "").includes("json");
  const body = json ? await answer.json() : {title: `The server answered ${answer.status}`, detail: (await answer.text()).slice(0, 500)};
  if (!answer.ok) throw {...body, status: answer.status, wait_s: Number(answer.headers.get("retry-after")) || 0};
  return body;
}

function query() {
  const asked = new URLSearchParams({explain: "true"});
  if (beams()) asked.set("num_beams", beams());
  if (beams() > 1) asked.set("num_captions", "3");
  if ($("longest").value) asked.set("max_new_tokens", $("longest").value);
  return asked;
}

async function ask(entry) {
  const turn = entry.turn = (entry.turn || 0) + 1;
  const form = new FormData();
  form.append("files", entry.file, entry.file.name || "pasted picture");
  change(entry, {state: "busy", note: null});
  const started = performance.now();
  let result;
  try {
    const answer = await call(`v1/captions?${query()}`, {method: "POST", body: form});
    result = {state: "done", answer, elapsed: performance.now() - started};
  } catch (problem) {
    result = {state: "failed", problem};
  }
  if (turn === entry.turn) change(entry, result);  // else asked again meanwhile, with other options
}

function change(entry, what) {
  Object.assign(entry, what);
  if (entry === shown) show(entry); else drawHistory();
}

async function work() {  // a folder of pictures dropped at once must not stand in the way of others
  if (running >= AT_ONCE) return;
  const next = entries.findLast((entry) => entry.state === "waiting");
  if (!next) return;
  running += 1;
  try { await ask(next); } finally { running -= 1; }
  refreshStatus();
  work();
}

function take(files) {
  const pictures = [...files].filter((file) => file.size || file.name);
  for (const file of pictures) entries.unshift({file, url: URL.createObjectURL(file), state: "waiting"});
  for (const old of entries.splice(Math.max(KEPT, pictures.length))) URL.revokeObjectURL(old.url);
  if (pictures.length) show(entries[pictures.length - 1]);
  for (let i = 0; i < AT_ONCE; i++) work();
}

async function refreshStatus() {
  let look = "down", word = "server not reached", version = "";
  try {
    const state = await (await fetch("readyz", {cache: "no-store"})).json();
    look = state.ready ? "ready" : "down";
    word = state.loading ? "loading the next model" : state.ready ? "ready" : "no model yet";
    version = state.model.version;
  } catch { /* said by the words above */ }
  $("status").className = `pill ${look}`;
  if ($("status-word").textContent !== word) $("status-word").textContent = word;
  if ($("status-model").textContent !== version) $("status-model").textContent = version;
}

// ---- showing what it said

function show(entry) {
  const again = shown === entry;
  shown = entry;
  const {state} = entry, done = state === "done", failed = state === "failed";
  $("drop").hidden = true;
  $("more").hidden = false;
  showPicture(entry);
  $("result").classList.toggle("busy", state === "busy" || state === "waiting");
  $("eyebrow").hidden = $("caption").hidden = failed;
  $("problem").hidden = !failed;
  $("done").hidden = $("readout").hidden = !done;
  if (!again || !done) closeCorrection();
  if (done) showCaption(entry);
  else if (failed) showProblem(entry.problem);
  else {
    $("caption").className = "caption quiet";
    $("caption").textContent = "Looking…";
  }
  showNote(entry);
  drawHistory();
}

function showPicture(entry) {
  const picture = $("picture");
  $("figure").hidden = false;
  $("frame").hidden = Boolean(entry.broken);
  $("unseen").hidden = !entry.broken;
  $("file-name").textContent = entry.file.name || "What you pasted";
  picture.alt = entry.state === "done" ? captionOf(entry).text : entry.file.name || "Pasted picture";
  picture.onload = () => picture.classList.toggle("small", Math.max(picture.naturalWidth, picture.naturalHeight) < SMALL_PX);
  picture.onerror = () => { entry.broken = true; if (shown === entry) showPicture(entry); };
  if (picture.src !== entry.url) picture.src = entry.url;
}

function showCaption(entry) {
  const caption = captionOf(entry), times = entry.answer.timings_ms;
  $("caption").className = caption.text.length > 90 ? "caption long" : "caption";
  showWords(caption);
  $("confidence").textContent = percent(caption.confidence);
  requestAnimationFrame(() => { $("confidence-bar").style.width = `${Math.max(1, 100 * caption.confidence)}%`; });
  $("latency").textContent = milliseconds(entry.elapsed);
  $("model-time").textContent = milliseconds(times.caption);
  $("version").textContent = entry.answer.model.version;
  showOthers(caption);
  const sentence = `${caption.text || "No words"}. Confidence ${percent(caption.confidence)}.`;
  if (entry.said !== sentence) say(entry.said = sentence);
}

function showWords(caption) {
  const words = caption.words || [];
  pinned = null;
  light(null);
  if (!words.length) {
    $("caption").textContent = caption.text || "(no words)";
    $("caption").classList.toggle("quiet", !caption.text);
    return;
  }
  const buttons = words.map((word, at) => {
    const level = make("b", {});
    level.style.width = `${100 * word.confidence}%`;
    const button = make("button", {type: "button", className: "word", tabIndex: at ? -1 : 0}, word.text, make("i", {}, level));
    button.setAttribute("aria-label", `${word.text}, ${percent(word.confidence)}`);
    button.setAttribute("aria-pressed", "false");
    button.onpointerenter = (event) => { if (event.pointerType === "mouse") light(word, button); };
    button.onfocus = () => { if (button.matches(":focus-visible")) light(word, button); };
    button.onpointerleave = button.onblur = () => pinned ? light(...pinned) : light(null);
    button.onclick = () => {
      pinned = pinned && pinned[1] === button ? null : [word, button];
      for (const other of buttons) other.setAttribute("aria-pressed", String(Boolean(pinned) && other === button));
      pinned ? light(word, button) : light(null);
    };
    button.onkeydown = (event) => step(event, buttons, at);
    return button;
  });
  $("caption").replaceChildren(...buttons.flatMap((button, at) => at ? [" ", button] : [button]));
}

function step(event, buttons, at) {  // one stop of the Tab key per caption, arrows within it
  const to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1}[event.key];
  if (event.key === "Escape" && pinned) buttons[buttons.indexOf(pinned[1])].click();
  if (to === undefined) return;
  event.preventDefault();
  if (!buttons[to]) return;
  buttons[at].tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}

function light(word, button) {
  const readout = $("readout");
  for (const one of $("caption").children) one.classList.toggle("on", one === button);
  $("heat").hidden = !word || !word.heat;
  if (!word) {
    readout.textContent = "Lines show how sure it was. Point at a word to see where it looked.";
    return;
  }
  readout.replaceChildren(`“${word.text}” `, make("b", {textContent: percent(word.confidence)}), " sure, bright where it looked");
  if (word.heat) drawHeat(word.heat);
}

function drawHeat(rows) {
  const canvas = $("heat"), side = canvas.width = canvas.height = rows.length, pixels = new ImageData(side, side);
  rows.flat().forEach((value, place) => {  // from a dark veil to an amber glow: seen on white, on black, and without colour
    const t = value / 255;
    pixels.data.set([13 + 242 * t, 17 + 178 * t, 28 + 22 * t, 255 * (0.82 - 0.44 * t)], 4 * place);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function showOthers(caption) {
  const others = (caption.alternatives || []).filter((other) => other.text !== caption.text);
  $("others").hidden = !others.length;
  $("ask-others").hidden = Boolean(others.length) || beams() > 1;
  $("others-list").replaceChildren(...others.map((other) => {
    const button = make("button", {type: "button", title: "Use it as the correction"}, make("span", {textContent: other.text}), make("b", {textContent: percent(other.confidence)}));
    button.onclick = () => openCorrection(other.text);
    return make("li", {}, button);
  }));
}

function showProblem(problem) {
  $("problem-title").textContent = problem.title || "The picture was refused";
  $("problem-detail").textContent = (problem.detail || "").replace(/^files\[0\] \([^)]*\): /, "");
  $("problem-id").textContent = problem.request_id ? `Request ${problem.request_id}` : "";
  $("problem-id").hidden = !problem.request_id;
  $("again").hidden = ![0, 401, 403, 429, 500, 503].includes(problem.status);
  say(`${$("problem-title").textContent}. ${$("problem-detail").textContent}`);
  if (problem.status === 401 || problem.status === 403) $("options").open = true;
}

function drawHistory() {
  $("strip").hidden = entries.length < 2;
  const focused = document.activeElement?.dataset.url;
  $("history").replaceChildren(...entries.map((entry) => {
    const text = {done: () => captionOf(entry).text || "(no words)", failed: () => "not captioned"}[entry.state]?.() ?? "…";
    const image = make("img", {src: entry.url, alt: "", onerror: () => image.classList.add("broken")});
    const button = make("button", {type: "button", onclick: () => show(entry)}, image, make("span", {textContent: text}));
    button.dataset.url = entry.url;
    button.classList.toggle("bad", entry.state === "failed");
    button.setAttribute("aria-current", String(entry === shown));
    return make("li", {}, button);
  }));
  if (focused) [...$("history").querySelectorAll("button")].find((button) => button.dataset.url === focused)?.focus();
}

// ---- correcting it

function openCorrection(text) {
  $("correction").hidden = false;
  $("correct").setAttribute("aria-expanded", "true");
  $("corrected").value = text;
  $("corrected").focus();
}

function closeCorrection() {
  $("correction").hidden = true;
  $("correct").setAttribute("aria-expanded", "false");
}

function showNote(entry) {
  $("note").hidden = !entry.note;
  $("note").textContent = entry.note?.text || "";
  $("note").classList.toggle("bad", Boolean(entry.note?.bad));
}

async function sendCorrection(event) {
  event.preventDefault();
  const entry = shown, text = $("corrected").value.trim();
  if (!text) return $("corrected").focus();
  $("send").disabled = true;
  try {
    const body = JSON.stringify({id: captionOf(entry).id, caption: text});
    await call("v1/feedback", {method: "POST", headers: {"content-type": "application/json"}, body});
    entry.note = {text: `Thank you. Noted: “${text}”`};
    if (entry === shown) { closeCorrection(); $("correct").focus(); }
  } catch (problem) {
    entry.note = {bad: true, text: `Not sent. ${problem.detail || problem.title || problem}`};
  }
  $("send").disabled = false;
  if (entry === shown) showNote(entry);
  say(entry.note.text);
}

// ---- what a person does

function reask() {
  const longest = $("longest");
  if (!longest.reportValidity()) return;
  const search = document.querySelector("input[name=beams]:checked + span").textContent;
  $("options-now").textContent = [beams() && search, longest.value && `at most ${longest.value} tokens`].filter(Boolean).join(", ");
  showCurl();
  if (shown) ask(shown);
}

function showCurl() {
  const asked = query();
  const key = $("key").value.trim() ? ' -H "authorization: Bearer $KEY"' : "";
  $("curl").textContent = `curl -F files=@picture.jpg${key} "${new URL("v1/captions", location.href).href}?${asked}"`;
}

async function copyCaption() {
  const text = captionOf(shown).text;
  let told = "Copied";
  try { await navigator.clipboard.writeText(text); } catch { told = "Cannot copy here"; }
  $("copy").textContent = told;
  say(told);
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
}

function keepKey() {
  try {
    if ($("key").value) sessionStorage.setItem("key", $("key").value); else sessionStorage.removeItem("key");
  } catch { /* then it is kept in the field only */ }
  showCurl();
  if (shown?.state === "failed") ask(shown);
}

$("drop").onclick = $("more").onclick = () => $("file").click();
$("file").onchange = () => { take($("file").files); $("file").value = ""; };
addEventListener("dragover", (event) => { event.preventDefault(); $("stage").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("stage").classList.remove("over"); });
addEventListener("drop", (event) => { event.preventDefault(); $("stage").classList.remove("over"); take(event.dataTransfer.files); });
addEventListener("paste", (event) => take(event.clipboardData.files));
document.querySelectorAll("input[name=beams]").forEach((input) => { input.onchange = reask; });
$("longest").onchange = reask;
$("key").onchange = keepKey;
$("copy").onclick = copyCaption;
$("again").onclick = () => ask(shown);
$("ask-others").onclick = () => { document.querySelector("input[name=beams][value='3']").checked = true; reask(); };
$("correct").onclick = () => $("correction").hidden ? openCorrection(captionOf(shown).text) : closeCorrection();
$("correct").setAttribute("aria-expanded", "false");
$("correct").setAttribute("aria-controls", "correction");
$("cancel").onclick = () => { closeCorrection(); $("correct").focus(); };
$("correction").onsubmit = sendCorrection;
try { $("key").value = sessionStorage.getItem("key") || ""; } catch { /* storage may be forbidden */ }
showCurl();
refreshStatus();
setInterval(() => { if (!document.hidden) refreshStatus(); }, 10000);
