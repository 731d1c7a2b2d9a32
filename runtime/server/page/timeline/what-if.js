// @ts-check
// "What if": a part of the run again with another prompt, backend or model, and what that changes.
import {address, get, inOrder, post, why} from "../api.js";
import {html, useEffect, useMemo, useState} from "../html.js";
import {count, counted} from "../words.js";
import {loadMoment, place} from "./moments.js";
import {RangeFields} from "./range.js";

const LOOK_MS = 700;
const SHOWN = 200;
const KEYS = ["prompt", "backend", "model", "max_new_tokens"];

/** @param {{run: string, moment: any, cycle: number | null, range: import("./scale.js").Span,
 *   onRange: (range: import("./scale.js").Span) => void, onShow: (whatIf: any) => void,
 *   onMoment: (cycle: number) => void, onClose: () => void}} props
 */
export function WhatIfPanel({run, moment, cycle, range, onRange, onShow, onMoment, onClose}) {
  const [tasks, setTasks] = useState(/** @type {{id: string, config: Record<string, any>}[]} */ ([]));
  const [task, setTask] = useState("");
  const [settings, setSettings] = useState(/** @type {any} */ (null));
  const [values, setValues] = useState(/** @type {Record<string, string>} */ ({}));
  const [all, setAll] = useState(/** @type {any[]} */ ([]));
  /** The run that the chosen one is. */
  const [chosen, choose] = useState("");
  const [state, setState] = useState(/** @type {any} */ (null));
  const [said, setSaid] = useState("");

  const ordered = useMemo(inOrder, []);
  const readAll = () => ordered(get(`${place(run)}/what-if`), setAll, () => {});
  useEffect(() => {
    get(place(run)).then(found => {
      const answering = new Set(found.outputs.filter((/** @type {any} */ it) => it.lane === "answers").map((/** @type {any} */ it) => it.task));
      const known = found.tasks.filter((/** @type {any} */ it) => answering.has(it.id));
      setTasks(known);
      setTask(known[0]?.id ?? "");
    }, error => setSaid(why(error)));
    readAll();
    if (!moment) get(`${place(run)}/moment`).then(found => setSettings(found.settings), () => {});
  }, [run]);
  useEffect(() => { if (moment) setSettings(moment.settings); }, [moment?.cycle]);
  useEffect(() => {
    setState(null);
    if (!chosen) return undefined;
    let timer = 0;
    let over = false;
    async function look() {
      try {
        const found = await get(whatIf(chosen));
        if (over) return;
        setState(found);
        onShow(found);
        if (found.state === "running") timer = setTimeout(look, LOOK_MS);
        else readAll();
      } catch (error) {
        if (!over) setSaid(why(error));
      }
    }
    look();
    return () => { over = true; clearTimeout(timer); };
  }, [run, chosen]);

  const config = tasks.find(({id}) => id === task)?.config ?? {};
  const present = settings?.[task] ?? config;
  const start = async () => {
    /** @type {Record<string, unknown>} */
    const set = {};
    for (const [key, text] of Object.entries(values)) {
      if (text !== "" && text !== String(present[key] ?? "")) {
        set[`${task}.${key}`] = key === "max_new_tokens" ? Number(text) : text;
      }
    }
    if (!Object.keys(set).length) return setSaid("Nothing differs from what was set then; change the prompt, backend or model.");
    try {
      const made = await post(`${place(run)}/what-if`, {set, from_cycle: range.from, to_cycle: range.to});
      setSaid("");
      choose(made.run);
      readAll();
    } catch (error) {
      setSaid(why(error));
    }
  };
  const cancel = async () => {
    try {
      await post(`${whatIf(chosen)}/cancel`, {});
    } catch (error) {
      setSaid(why(error));
    }
  };
  const field = (/** @type {string} */ key) => {
    const input = (/** @type {any} */ event) => setValues({...values, [key]: event.target.value});
    const shown = values[key] ?? String(present[key] ?? "");
    const id = `what-if-${key}`;
    // As a list of words to choose from: a graph may name any.
    const words = key === "backend" ? backendsOf(config) : [];
    return html`<label class=${key === "prompt" ? "wide" : ""}>${key}
      ${key === "prompt" ? html`<textarea rows="2" value=${shown} onInput=${input}></textarea>`
        : html`<input value=${shown} onInput=${input} list=${words.length ? id : undefined} placeholder="as it was" />`}
      ${words.length > 0 && html`<datalist id=${id}>${words.map(word => html`<option value=${word} />`)}</datalist>`}</label>`;
  };
  return html`<div class="timeline-panel" role="region" aria-label="What if" data-what-if=${state?.state ?? ""}>
    <div class="timeline-fields">
      ${tasks.length > 1 && html`<label>Task <select value=${task} onChange=${(/** @type {any} */ event) => { setTask(event.target.value); setValues({}); }}>
        ${tasks.map(({id}) => html`<option value=${id} selected=${id === task}>${id}</option>`)}</select></label>`}
      ${task && KEYS.map(field)}
      <${RangeFields} range=${range} onRange=${onRange} />
      <button class="action" onClick=${start} disabled=${!task}>Run it again</button>
      ${state?.state === "running" && html`<button onClick=${cancel}>Cancel</button>`}
      ${all.length > 0 && html`<label>All what-ifs <select value=${chosen} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
        <option value="">–</option>${all.map(it => html`<option value=${it.run} selected=${it.run === chosen}>#${it.id}: ${Object.values(it.set).join(", ")}${it.state === "done" ? "" : ` (${it.state})`}</option>`)}</select></label>`}
      <button class="link close" onClick=${onClose}>Close</button>
    </div>
    ${!tasks.length && !said && html`<p>No task of this run answers in words; flowrun replay --set changes any other value.</p>`}
    <p role="status">${said}</p>
    ${state && html`<${Outcome} run=${state.run.slice(0, state.run.lastIndexOf("~"))} state=${state} cycle=${cycle} onMoment=${onMoment} />`}
  </div>`;
}

/** Where a what-if is in the API. @param {string} run that it is, "of~number" */
function whatIf(run) {
  const at = run.lastIndexOf("~");
  return `${place(run.slice(0, at))}/what-if/${run.slice(at + 1)}`;
}

/** Those that the config of a task names, and those that any has. @param {Record<string, any>} config */
const backendsOf = config => [...new Set(["embedded", "transformers", ...Object.keys(config.backends ?? {}), ...config.backend ? [config.backend] : []])];

/** @param {{run: string, state: any, cycle: number | null, onMoment: (cycle: number) => void}} props */
function Outcome({run, state, cycle, onMoment}) {
  const what = Object.entries(state.set).map(([key, value]) => `${key}: ${value}`).join(", ");
  const head = state.state === "error" ? `#${state.id} failed` : state.state === "cancelled" ? `#${state.id} was cancelled`
    : state.state === "running" ? `#${state.id} runs, ${Math.round(100 * state.progress)} %` : `#${state.id} is done`;
  const chosen = state.differs.find((/** @type {any} */ it) => it.cycle === cycle)
    ?? state.differs.findLast((/** @type {any} */ it) => cycle !== null && it.cycle <= cycle) ?? state.differs[0];
  return html`<div class="what-if">
    <p><b>${head}</b>: ${counted(state.differing, "answer")} of ${count(state.compared)} differ${state.compared === 1 ? "s" : ""} · ${what}</p>
    ${state.state === "running" && html`<progress value=${state.progress} aria-label="Progress"></progress>`}
    ${state.why && html`<pre class="timeline-code" tabindex="0" role="region" aria-label="Why it failed">${state.why}</pre>`}
    ${state.differs.length > 0 && html`<div class="what-if-changes">
      <ol>${state.differs.slice(0, SHOWN).map((/** @type {any} */ it) => html`<li key=${`${it.task} ${it.cycle}`}>
        <button class="change" aria-pressed=${it === chosen} onClick=${() => onMoment(it.cycle)}>
          <small>cycle ${count(it.cycle)}</small>
          <del>${it.before?.response ?? "no answer"}</del> <ins>${it.after?.response ?? "no answer"}</ins></button></li>`)}
        ${state.differs.length > SHOWN && html`<li>and ${count(state.differing - SHOWN)} more</li>`}</ol>
      ${chosen && html`<div class="what-if-pictures">
        <${Side} run=${run} other=${null} change=${chosen} answer=${chosen.before} title="recorded" />
        <${Side} run=${state.run} other=${run} change=${chosen} answer=${chosen.after} title="what if" />
      </div>`}
    </div>`}
  </div>`;
}

/** One of the two pictures, with its boxes and its answer.
 * @param {{run: string, other: string | null, change: any, answer: any, title: string}} props
 *   other: the run that has the picture where this one lacks it.
 */
function Side({run, other, change, answer, title}) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let over = false;
    loadMoment(run, change.cycle).then(
      moment => { if (!over) setFound(moment); },
      () => { if (!over) setFound({}); });
    return () => { over = true; };
  }, [run, change.cycle]);
  const said = found?.answers?.[change.task];
  const drawn = Object.values(found?.detections ?? {})[0];
  const frame = said?.frame;
  // What a task drew, such as boxes, says more than what the camera showed.
  const pictures = Object.entries(found?.images ?? {});
  const shown = pictures.find(([name]) => name !== frame?.task)?.[1] ?? null;
  const source = frame ? `${place(other ?? run)}/image/${frame.task}` : null;
  const [width, height] = [drawn?.width ?? 0, drawn?.height ?? 0];
  return html`<figure>
    <div class="what-if-picture">${shown ? html`<img alt=${`${title}, cycle ${shown.cycle}`} src=${address(shown.url)} />`
      : source ? html`<img alt=${`${title}, cycle ${frame.cycle}`} src=${address(source, {cycle: frame.cycle, width: 480})} />` : null}
      ${!shown && drawn && html`<svg viewBox=${`0 0 ${width} ${height}`} aria-hidden="true">${drawn.objects.map((/** @type {any} */ it) => html`
        <rect x=${it.x} y=${it.y} width=${it.width} height=${it.height} />`)}</svg>`}</div>
    <figcaption><b>${title}</b> ${answer ? answer.response : "no answer"}</figcaption>
  </figure>`;
}
