"use strict";
// Whatever comes from the run becomes text (textContent), never markup.
const $ = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const LIVE_AT_ONCE = 3;  // a browser opens six connections to a server, and needs some for the rest
const ANSWERS_KEPT = 30;
const SLOW_ANSWER_MS = 300;

function url(path, query = {}) {
  const search = new URLSearchParams(query);
  if (token) search.set("token", token);
  return search.size ? `${path}?${search}` : path;
}
function make(tag, {text, cls, ...attributes} = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (cls) element.className = cls;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// -- words for numbers ---------------------------------------------------------------------------
const known = value => typeof value === "number" && Number.isFinite(value);
const micros = us => !known(us) ? "–" : us < 1000 ? `${us.toFixed(0)} µs` : us < 1e6 ? `${(us / 1e3).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms` : `${(us / 1e6).toFixed(2)} s`;
const millis = ms => known(ms) ? ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s` : "–";
const count = n => known(n) ? n.toLocaleString("en") : "–";
function bytes(n) {
  if (!known(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit ? n.toFixed(n < 10 ? 1 : 0) : n} ${units[unit]}`;
}
function duration(s) {
  if (!known(s)) return "–";
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h} h ${m} min` : m ? `${m} min ${Math.floor(s % 60)} s` : `${Math.floor(s)} s`;
}
const two = n => String(n).padStart(2, "0");
function clock(ns) {
  const t = new Date(ns / 1e6);
  return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}.${String(t.getMilliseconds()).padStart(3, "0")}`;
}
const speed = ms => !known(ms) ? "" : ms < 300 ? "good" : ms < 1500 ? "fair" : "slow";

// -- pictures ------------------------------------------------------------------------------------
let screens = [];   // ids of the tasks that show pictures
let shown = [];     // those that are live
let live = false;   // whether streams may run now
function showScreens() {
  $("pictures").hidden = !screens.length;
  for (const image of $("screens").querySelectorAll("img")) image.removeAttribute("src");  // ends its stream
  $("screens").replaceChildren(...shown.map(task => {
    const image = make("img", {alt: `live picture of ${task}`});
    const wait = make("span", {cls: "wait", text: live ? "waiting for a picture …" : "not live"});
    image.addEventListener("load", () => wait.remove());
    if (live) image.src = url(`/api/v0/streaming/video/${encodeURIComponent(task)}`, {since: Date.now()});
    const still = make("a", {text: "still", href: url(`/api/v0/streaming/image/${encodeURIComponent(task)}`, {latest: 1}), target: "_blank", rel: "noreferrer"});
    return make("figure", {}, make("div", {cls: "screen"}, image, wait),
      make("figcaption", {}, make("span", {text: task}), still));
  }));
  $("more").replaceChildren(...screens.filter(task => !shown.includes(task)).map(task => {
    const chip = make("button", {cls: "chip", type: "button", text: `show ${task}`});
    chip.addEventListener("click", () => { shown = [...shown.slice(1), task]; showScreens(); });
    return chip;
  }));
}
function freeze() {
  live = false;
  // The last picture stays, dimmed, but is plainly not live.
  for (const box of document.querySelectorAll(".screen")) box.classList.add("over");
}

// -- answers -------------------------------------------------------------------------------------
const seen = new Set();  // a stream that is opened again begins with the newest answer
function addAnswer(answer) {
  const key = `${answer.task} ${answer.cycle} ${answer.timestamp_nanos} ${answer.response}`;
  if (seen.has(key)) return;
  if (!seen.size) $("answers").replaceChildren();
  $("growing").hidden = true;
  seen.add(key);
  const meta = make("div", {cls: "meta"},
    make("time", {text: clock(answer.timestamp_nanos), title: "when the frame was taken"}),
    make("span", {cls: `pill ${speed(answer.latency_ms)}`, text: millis(answer.latency_ms), title: "latency"}),
    make("span", {text: [`cycle ${answer.cycle}`, answer.backend, `${answer.tokens} tokens`].join(" · ")}));
  if (answer.truncated) meta.append(make("span", {cls: "pill fair", text: "cut off", title: "the model had not ended this answer"}));
  const parts = [make("div", {cls: "response", text: answer.response || "(an empty answer)"})];
  if (answer.reasoning)
    parts.push(make("details", {}, make("summary", {text: "reasoning"}), make("div", {cls: "response", text: answer.reasoning})));
  // A prompt is shown once, above all its answers.
  const above = $("answers").querySelector("li:first-child .prompt");
  if (above?.textContent === answer.prompt) above.remove();
  $("answers").prepend(make("li", {}, meta,
    make("div", {cls: "prompt", text: answer.prompt}), ...parts));
  while ($("answers").children.length > ANSWERS_KEPT) $("answers").lastChild.remove();
  if (seen.size > 1000) { seen.clear(); seen.add(key); }
}

let growing = {};
function addPart(part) {
  const key = `${part.task} ${part.cycle}`;
  if (growing.key !== key) growing = {key, since: performance.now()};
  if (performance.now() - growing.since < SLOW_ANSWER_MS) return;  // a quick one would only flicker
  $("growing").hidden = false;
  $("growing").textContent = `${part.text}…`;
}

// -- the graph -----------------------------------------------------------------------------------
const owner = end => String(end).split(".")[0];
function drawGraph(graph) {
  const tasks = graph.tasks ?? [];
  const ids = new Set(tasks.map(task => task.id));
  const wires = (graph.cnx ?? []).map(c => [owner(c.src), owner(c.dst), c.msg]).filter(([a, b]) => ids.has(a) && ids.has(b));
  const rank = Object.fromEntries(tasks.map(task => [task.id, 0]));
  for (let round = 0; round < tasks.length; round += 1)
    for (const [from, to] of wires) rank[to] = Math.min(tasks.length, Math.max(rank[to], rank[from] + 1));
  const columns = [];
  for (const task of tasks) (columns[rank[task.id]] ??= []).push(task);
  const filled = columns.filter(Boolean);
  const short = (text, n) => text.length > n ? `${text.slice(0, n - 1)}…` : text;
  const [high, rowGap, columnGap] = [46, 18, 54];
  const tall = Math.max(1, ...filled.map(column => column.length)) * (high + rowGap) - rowGap;
  const at = {};
  let x = 2;
  for (const column of filled) {
    const wide = Math.max(...column.map(task => Math.max(short(task.id, 24).length * 8.2, short(String(task.type), 26).length * 6.6))) + 26;
    const top = (tall - (column.length * (high + rowGap) - rowGap)) / 2 + 2;
    column.forEach((task, row) => { at[task.id] = {x, y: top + row * (high + rowGap), wide}; });
    x += wide + columnGap;
  }
  const svg = draw("svg", {width: x - columnGap + 4, height: tall + 4, role: "img"});
  svg.append(draw("title", {}, "The tasks of the graph and their connections"));
  for (const [from, to, msg] of wires) {
    const [a, b] = [at[from], at[to]];
    const [x1, y1, x2, y2] = [a.x + a.wide, a.y + high / 2, b.x - 6, b.y + high / 2];
    const bend = Math.max(24, (x2 - x1) / 2);
    const wire = draw("path", {class: "wire", d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`});
    wire.append(draw("title", {}, `${from} → ${to}: ${msg ?? ""}`));
    svg.append(wire, draw("path", {class: "tip", d: `M${x2 + 6},${y2} l-8,-4 v8 z`}));
  }
  for (const task of tasks) {
    const {x: left, y: top, wide} = at[task.id];
    const role = !wires.some(w => w[1] === task.id) ? "source" : !wires.some(w => w[0] === task.id) ? "sink" : "";
    const box = draw("rect", {class: `box ${role}`, x: left, y: top, width: wide, height: high, rx: 8});
    box.append(draw("title", {}, `${task.id}: ${task.type}`));
    svg.append(box, draw("text", {x: left + 13, y: top + 20}, short(task.id, 24)),
      draw("text", {class: "type", x: left + 13, y: top + 36}, short(String(task.type), 26)));
  }
  $("graph").replaceChildren(svg);
}

// -- the prompt ----------------------------------------------------------------------------------
let asked = false;  // whether the user has touched the box
function offerPrompt(liveKeys, graph) {
  const targets = Object.keys(liveKeys ?? {}).filter(task => liveKeys[task].includes("prompt"));
  $("ask").hidden = !targets.length;
  const current = (graph.tasks ?? []).find(task => task.id === targets[0])?.config?.prompt;
  if (!asked && typeof current === "string") $("prompt").value = current;
  $("target").hidden = targets.length < 2;
  $("target").replaceChildren(make("option", {text: "all tasks", value: ""}),
    ...targets.map(task => make("option", {text: task, value: task})));
}
function say(text, cls) { $("said").textContent = text; $("said").className = cls; }
$("prompt").addEventListener("input", () => { asked = true; say("", ""); });
$("prompt").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("form").requestSubmit(); }
});
$("form").addEventListener("submit", async event => {
  event.preventDefault();
  asked = true;
  $("send").disabled = true;
  try {
    const settings = {prompt: $("prompt").value};
    if ($("target").value) settings.task = $("target").value;
    const reply = await fetch(url("/api/v0/inference/settings"), {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(settings)});
    const result = await reply.json();
    if (reply.ok) say("Asked: in force from the next cycle on.", "done");
    else say(result.error ?? `HTTP ${reply.status}`, "bad");
  } catch (error) {
    say(`The server cannot be reached (${error.message}).`, "bad");
  } finally {
    $("send").disabled = over;
  }
});

// -- the run -------------------------------------------------------------------------------------
let over = false;
function notice(text, cls = "") { $("notice").hidden = !text; $("notice").textContent = text; $("notice").className = cls; }
function setState(text, cls) { $("state").textContent = text; $("state").className = `pill ${cls}`; }
function late(task) {
  return known(task.late_s) ? [make("small", {text: `hangs: ${duration(task.late_s)} in one call`, cls: "slow"})] : [];
}
function doing(task) {
  if ([undefined, null, "running", "ended"].includes(task.state)) return [];
  return [make("small", {text: task.code ? `${task.state}: ${task.code}` : task.state, cls: "slow"})];
}
function causes(task) {
  return Object.entries(task.dropped_by ?? {}).map(([cause, number]) => `${count(number)} ${cause || "left out"}`).join(", ");
}
function showReport(report) {
  $("name").textContent = report.id;
  document.title = `${report.id} - flowrun`;
  $("rate").textContent = known(report.cycle_rate_hz) ? report.cycle_rate_hz.toFixed(1) : "–";
  $("cycles").textContent = count(report.cycles);
  $("uptime").textContent = duration(report.uptime_s);
  $("logsize").textContent = report.log?.path ? bytes(report.log.bytes) : "off";
  $("logpath").textContent = report.log?.path ?? "off";
  $("tasks").replaceChildren(...Object.entries(report.tasks ?? {}).map(([id, task]) => make("tr", {},
    make("td", {text: id}, make("small", {text: task.type ?? ""}), ...late(task), ...doing(task)),
    make("td", {text: micros(task.p50_us)}), make("td", {text: micros(task.p99_us)}),
    make("td", {text: count(task.dropped), title: causes(task)}))));
}
function showEnd(status) {
  over = true;
  freeze();
  $("send").disabled = true;
  if (status && typeof status === "object") {
    setState("Error", "slow");
    notice(`The run has ended with an error: ${status.Error}`, "slow");
  } else if (status === "Running") {
    setState("Unwatched", "fair");
    notice("The server has stopped. What this page shows is the last state it sent.");
  } else {
    setState("Ended", "");
    notice("The run has ended. What this page shows is its last state.");
  }
}
async function get(path) {
  const reply = await fetch(url(path));
  if (!reply.ok) throw new Error((await reply.json()).error ?? `HTTP ${reply.status}`);
  return reply.json();
}
let events = null;
async function connect() {
  if (events || over || document.hidden) return;
  const source = new EventSource(url("/api/v0/events"));
  events = source;
  source.addEventListener("open", async () => {
    try {
      const [graph, report] = await Promise.all([get("/api/v0/pipeline/config"), get("/api/v0/report")]);
      const showing = kind => Object.keys(report.shows).filter(task => report.shows[task] === kind);
      screens = showing("picture");
      if (!shown.every(task => screens.includes(task)) || !shown.length) shown = screens.slice(0, LIVE_AT_ONCE);
      $("chat").hidden = !showing("answer").length;
      drawGraph(graph);
      offerPrompt(report.live, graph);
      showReport(report);
      if (report.status !== "Running") return;
      notice("");
      setState("Running", "good");
      live = true;
      showScreens();
    } catch (error) {
      notice(`The server said: ${error.message}`, "slow");
    }
  });
  source.addEventListener("statistics", event => showReport(JSON.parse(event.data)));
  source.addEventListener("result", event => addAnswer(JSON.parse(event.data)));
  source.addEventListener("partial", event => addPart(JSON.parse(event.data)));
  source.addEventListener("ended", event => {
    source.close();
    const report = JSON.parse(event.data);
    showReport(report);
    showEnd(report.status);
  });
  source.addEventListener("error", () => {
    if (over || events !== source) return;
    source.close();
    events = null;
    freeze();
    setState("No connection", "slow");
    notice("The server cannot be reached: the run has probably ended. Trying again …", "slow");
    setTimeout(connect, 2000);
  });
}
// A page that nobody sees holds no stream: the run then encodes no pictures for it.
document.addEventListener("visibilitychange", () => {
  if (over) return;
  if (!document.hidden) { connect(); return; }
  events?.close();
  events = null;
  live = false;
  showScreens();
});
if (token) $("docs").href = url("/docs");
connect();
