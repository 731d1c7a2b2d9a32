// @ts-check
// The values that may change while the graph runs: always those in force, whoever set them.
import {post, why} from "../api.js";
import {html, useEffect, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {cut, duration} from "../words.js";

/** @typedef {import("../known.js").Health} Health */

const STALE_S = 90;  // what was seen longer ago is said with its time
const MOODS = {unused: "", loading: "hold", ok: "good", failing: "slow"};

/** Values of a task that may be set, and are not set from elsewhere meanwhile.
 * @param {{say: import("../said.js").Say}} props */
export function SettingsForm({say}) {
  const run = useKnown();
  const live = Object.entries(run.report?.live ?? {}).filter(([, keys]) => keys.length);
  const [chosen, choose] = useState("");
  if (run.moment !== null) return html`<${SettingsThen} />`;
  if (!live.length) return null;
  const tasks = live.map(([task]) => task);
  const task = tasks.includes(chosen) ? chosen : live.find(([, keys]) => keys.includes("prompt"))?.[0] ?? tasks[0];
  const keys = run.report?.live[task] ?? [];
  const values = {...configOf(run, task), ...run.settings[task]};
  const backends = Object.entries(run.report?.tasks[task]?.backends ?? {});
  const disabled = run.over || run.connection !== "open" || run.moment !== null;
  /** @param {Record<string, any>} changes @returns {Promise<boolean>} */
  const set = async changes => {
    try {
      await post("api/v0/inference/settings", {task, ...changes});
      run.takeSettings({[task]: changes});
      run.changed();
      say("Set: in force from the next cycle on.");
      return true;
    } catch (error) {
      say(why(error), true);
      return false;
    }
  };
  return html`<section class="settings" aria-label="Prompt">
    <h2>${keys.includes("prompt") ? html`<label for="prompt">Prompt</label>` : "Settings"}
      ${tasks.length > 1
        ? html`<select aria-label="Task" value=${task} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
            ${tasks.map(name => html`<option>${name}</option>`)}</select>`
        : html`<small>${task}</small>`}</h2>
    ${keys.includes("prompt") && html`<${Prompt} key=${task} task=${task} inForce=${values.prompt} set=${set} disabled=${disabled} />`}
    <div class="values">
      ${keys.filter(key => key !== "prompt").map(key => html`<${Value} key=${`${task} ${key}`} name=${key} inForce=${values[key]}
        choices=${key === "backend" && backends.length ? backends.map(([name]) => name) : null} set=${set} disabled=${disabled} />`)}
    </div>
    <${Backends} all=${backends} inForce=${values.backend} />
  </section>`;
}

/** How those are doing that may answer for a task. @param {{all: [string, Health][], inForce: string}} props */
function Backends({all, inForce}) {
  if (!all.length) return null;
  return html`<div class="backends" tabindex="0" role="region" aria-label="Backends"><ul>
    ${all.map(([name, health]) => html`<li key=${name} data-backend=${name} data-state=${health.state} class=${MOODS[health.state]}>
      <b>${name}</b> <span class="how">${howIs(health)}</span>${health.used && html` <small>${name === inForce ? "in force" : "fallback"}</small>`}
      ${health.state === "failing" && html`<p>${health.detail}</p>`}
      <${Servers} all=${Object.entries(health.servers ?? {})} /></li>`)}
  </ul></div>`;
}

/** How each server of a farm is doing. @param {{all: [string, import("../known.js").ServerHealth][]}} props */
function Servers({all}) {
  if (!all.length) return null;
  return html`<ul class="servers">${all.map(([url, it]) => html`<li key=${url} data-server=${url} data-state=${it.state} class=${MOODS[it.state]}>
    <b>${url}</b> <span class="how">${howIs(it)}</span> <small>${it.answers} ${it.answers === 1 ? "answer" : "answers"}${
      it.outstanding > 0 && `, ${it.outstanding} asked now`}</small>
    ${it.state === "failing" && html`<p>${it.detail}</p>`}</li>`)}</ul>`;
}

/** @param {Pick<Health, "state" | "for_s" | "seen_s" | "detail">} health */
function howIs({state, for_s, seen_s, detail}) {
  if (state === "unused") return "not used yet";
  if (state === "loading") return detail ? `loading: ${detail}` : "loading";
  if (state === "failing") return `failing for ${duration(for_s)}`;
  return seen_s < STALE_S ? "ok" : `ok ${duration(seen_s)} ago`;
}

/** The values that were in force at the moment looked at, of those that the graph or somebody had set. */
function SettingsThen() {
  const {then, report} = useKnown();
  const shown = Object.entries(then?.settings ?? {})
    .map(([task, values]) => {
      const keys = (report?.live[task] ?? ["prompt", "backend"]).filter(key => key in values);
      return /** @type {[string, [string, any][]]} */ ([task, keys.map(key => [key, values[key]])]);
    })
    .filter(([, values]) => values.length);
  if (!shown.length) return null;
  return html`<section class="settings" aria-label="Values in force then"><h2>In force then</h2>
    ${shown.map(([task, values]) => html`<dl class="then" key=${task}><div><dt>task</dt><dd><b>${task}</b></dd></div>
      ${values.map(([key, value]) => html`<div key=${key}><dt>${key}</dt><dd>${cut(typeof value === "string" ? value : JSON.stringify(value) ?? "")}</dd></div>`)}</dl>`)}
  </section>`;
}

/** @param {import("../known.js").Known} run @param {string} task @returns {Record<string, any>} */
const configOf = (run, task) => run.graph?.tasks.find(({id}) => id === task)?.config ?? {};

/** @param {{task: string, inForce: string | undefined, disabled: boolean,
 *   set: (changes: Record<string, any>) => Promise<boolean>}} props */
function Prompt({task, inForce, set, disabled}) {
  const run = useKnown();
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));  // null: nothing has been typed
  const shown = draft ?? inForce ?? "";
  const known = inForce !== undefined;
  const presets = /** @type {string[]} */ (configOf(run, task).presets ?? []);
  const history = (run.prompts[task] ?? []).filter(prompt => prompt !== inForce && !presets.includes(prompt)).slice(0, 6);
  const ask = async (/** @type {string} */ prompt) => { if (await set({prompt})) setDraft(null); };
  /** @param {any} event */
  const key = event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(event.target.value); }
    if (event.key === "Escape") setDraft(null);
  };
  /** @param {any} event */
  const submit = event => { event.preventDefault(); ask(event.target.elements.prompt.value); };
  return html`<form class="ask" onSubmit=${submit}>
    <textarea id="prompt" rows="2" required value=${shown} disabled=${disabled || !known} onKeyDown=${key}
      aria-describedby="in-force" onInput=${(/** @type {any} */ event) => setDraft(event.target.value)}></textarea>
    <button id="send" disabled=${disabled || !known}>Ask</button>
    <p id="in-force" hidden=${draft === null || draft === inForce}>in force: <q>${inForce}</q>
      <button type="button" class="link" onClick=${() => setDraft(null)}>keep it</button></p>
    ${(presets.length > 0 || history.length > 0) && html`<div class="chips" role="group" aria-label="Prompts to choose from">
      ${[...presets, ...history].map(prompt => html`<button type="button" class="preset" key=${prompt} title=${prompt}
        aria-pressed=${prompt === inForce} disabled=${disabled} onClick=${() => ask(prompt)}>${prompt}</button>`)}</div>`}
  </form>`;
}

/** @param {{name: string, inForce: any, choices: string[] | null, disabled: boolean,
 *   set: (changes: Record<string, any>) => Promise<boolean>}} props */
function Value({name, inForce, choices, set, disabled}) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  const field = useRef(/** @type {any} */ (null));
  const plain = typeof inForce === "string" || typeof inForce === "number";
  const text = draft ?? (inForce === undefined ? "" : plain ? String(inForce) : JSON.stringify(inForce));
  useEffect(() => { setDraft(null); }, [JSON.stringify(inForce)]);
  const give = async (/** @type {string} */ given) => {
    let value = /** @type {any} */ (given);
    if (typeof inForce !== "string") try { value = JSON.parse(given); } catch { /* the server says what is wrong */ }
    await set({[name]: value});
    setDraft(null);
  };
  const id = `set-${name}`;
  return html`<label for=${id}><span>${name}</span>
    ${choices
      ? html`<select id=${id} value=${text} disabled=${disabled} onChange=${(/** @type {any} */ event) => give(event.target.value)}>
          ${choices.map(choice => html`<option>${choice}</option>`)}</select>`
      : html`<input id=${id} ref=${field} value=${text} disabled=${disabled} inputmode=${typeof inForce === "number" ? "decimal" : "text"}
          onInput=${(/** @type {any} */ event) => setDraft(event.target.value)}
          onKeyDown=${(/** @type {any} */ event) => { if (event.key === "Escape") setDraft(null); }}
          onChange=${(/** @type {any} */ event) => give(event.target.value)} />`}
  </label>`;
}
