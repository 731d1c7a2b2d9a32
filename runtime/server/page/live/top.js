// @ts-check
// The bar at the top: which run, how it is, and what may be done with it.
import {address, post, why} from "../api.js";
import {Fragment, html, useEffect, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {placeAsked, reopen} from "../location.js";
import {place} from "../timeline/moments.js";
import {bytes, clock, count, duration} from "../words.js";

/** @typedef {import("../said.js").Say} Say */

/** @param {{say: Say}} props */
export function Top({say}) {
  const run = useKnown();
  const {state, text, detail} = run.state;
  const report = run.report;
  useEffect(() => { document.title = report ? `${report.id} - flowrun` : "flowrun"; }, [report?.id]);
  /** @param {string} verb */
  const ask = async verb => {
    if (verb !== "pause" && verb !== "resume") run.asked = verb === "stop" ? verb : "restart";
    run.changed();
    try {
      const reply = await post(`api/v0/pipeline/${verb}`, {pipeline_id: name});
      say(reply.message ?? "Done.");
      if (verb === "start") run.look(null);  // who starts it wants to see it, not what was
    } catch (error) {
      run.asked = null;
      say(why(error), true);
    }
  };
  const name = run.pipeline?.id ?? report?.id;
  const going = !run.over && !!report && run.connection === "open" && run.asked === null;
  const {pipeline} = run;
  const moment = `cycle ${count(run.moment)}${run.thenOf !== run.moment ? " …" : run.then ? `, ${clock(run.then.at_ns)}` : ""}`;
  const again = run.over && !!report?.may_run_again && !run.unreachable && run.asked === null;
  return html`<header class="top">
    <h1 title=${name ?? null}>${pipeline && html`<a href=${address("../../")} title="all graphs of this server">flowrun</a> / `}${name ?? "flowrun"}</h1>
    <${Runs} say=${say} />
    <span id="state" class="state ${state}" role="status"><b>${text}</b>${detail && html`<span class="detail" title=${detail}>${detail}</span>`}</span>
    ${run.moment !== null && html`<span class="state paused">${run.recorded === null && html`<b>Looking back</b>`}<span class="detail" title=${moment}>${moment}</span>
      ${run.recorded === null && html`<button type="button" class="link" onClick=${() => run.look(null)}>back to now</button>`}</span>`}
    <dl class="facts">
      <div><dd>${report ? report.cycle_rate_hz.toFixed(1) : "–"}</dd><dt>cycles/s</dt></div>
      <div><dt>cycle</dt><dd>${count(report?.cycles)}</dd></div>
      <div><dt>${run.over ? "ran" : "up"}</dt><dd>${duration(report?.uptime_s)}</dd></div>
      <div><dt>log</dt><dd>${report ? report.log ? bytes(report.log.bytes) : "off" : "–"}</dd></div>
    </dl>
    <div class="buttons">
      ${run.recorded === null && !run.unopened && html`<${Fragment}>
        ${state === "paused"
          ? html`<button type="button" disabled=${!going} onClick=${() => ask("resume")}>Resume</button>`
          : html`<button type="button" disabled=${!going} onClick=${() => ask("pause")}>Pause</button>`}
        ${(pipeline ? ["stopped", "failed"].includes(pipeline.phase ?? "") && run.connection !== "open" : again)
          ? html`<button type="button" onClick=${() => ask("start")}>Start</button>`
          : html`<button type="button" disabled=${run.asked !== null || !going && !pipeline} onClick=${() => ask("stop")}>Stop</button>`}
        ${pipeline && html`<button type="button" disabled=${!going} onClick=${() => ask("restart")}>Restart</button>`}<//>`}
      <${LogMenu} say=${say} />
      <${Theme} />
    </div>
  </header>`;
}

/** The runs that may be looked at, where there are several. @param {{say: Say}} props */
function Runs({say}) {
  const run = useKnown();
  const live = run.pipelines.length > 0;
  const others = run.runs.filter(({state}) => !(live && state === "running"));
  if (others.length + Number(live) < 2) return null;
  /** @param {HTMLSelectElement} list */
  const choose = list => {
    const id = list.value;
    if (id) run.open(id).catch(error => { say(why(error), true); list.value = run.recorded ?? ""; });
    else reopen({run: null, cycle: null});  // the live run
  };
  const shown = run.recorded ?? (run.unopened ? placeAsked().run : null) ?? "";
  return html`<select aria-label="Run" value=${shown} onFocus=${() => run.loadRuns()}
      onChange=${(/** @type {any} */ event) => choose(event.target)}>
    ${live && html`<option value="">live</option>`}
    ${others.map(({id, state}) => html`<option key=${id} value=${id}>${id}${state === "ended" ? "" : `, ${state}`}</option>`)}
  </select>`;
}

/** Everything about the log of the run. @param {{say: Say}} props */
function LogMenu({say}) {
  const run = useKnown();
  const {report} = run;
  const path = report?.log?.path;
  const copy = async (/** @type {string} */ text) => {
    try {
      await navigator.clipboard.writeText(text);
      say(`Copied: ${text}`);
    } catch {
      say(text);
    }
  };
  return html`<${Menu} label="Log" disabled=${!path}>
    <code class="path">${path}</code>
    ${run.runs.length > 0 && html`<a role="menuitem" href=${address(`${place(run.logged)}/log.mcap`)} download>Download MCAP</a>`}
    <button role="menuitem" type="button" onClick=${() => copy(`flowrun replay ${path}`)}>Copy the replay command</button>
    <button role="menuitem" type="button" onClick=${() => copy(`flowrun view ${path} --foxglove`)}>Copy: open in Foxglove</button>
    <button role="menuitem" type="button" onClick=${() => copy(`flowrun view ${path} --rerun`)}>Copy: open in Rerun</button>
    <a role="menuitem" href=${address("docs")}>HTTP API</a>
  <//>`;
}

/** A button that opens a list. @param {{label: string, disabled?: boolean, children?: any}} props */
export function Menu({label, disabled, children}) {
  const [open, setOpen] = useState(false);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    if (!open) return;
    /** @param {Event} event */
    const away = event => { if (!box.current?.contains(/** @type {Node} */ (event.target))) setOpen(false); };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, [open]);
  /** @param {KeyboardEvent} event */
  const key = event => {
    const items = [...box.current?.querySelectorAll("[role=menuitem]") ?? []];
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (event.key === "Escape") { setOpen(false); box.current?.querySelector("button")?.focus(); }
    if (!step || !open) return;
    event.preventDefault();
    const at = items.indexOf(/** @type {Element} */ (document.activeElement));
    /** @type {HTMLElement} */ (items[(at + step + items.length) % items.length]).focus();
  };
  return html`<div class="menu" ref=${box} onKeyDown=${key}>
    <button type="button" disabled=${disabled} aria-haspopup="menu" aria-expanded=${open}
      onClick=${() => setOpen(!open)}>${label}</button>
    ${open && html`<div class="items" role="menu" aria-label=${label} onClick=${() => setOpen(false)}>${children}</div>`}
  </div>`;
}

const THEMES = ["", "light", "dark"];
function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("flowrun-theme") ?? "");
  const next = () => {
    const chosen = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    if (chosen) { document.documentElement.dataset.theme = chosen; localStorage.setItem("flowrun-theme", chosen); }
    else { delete document.documentElement.dataset.theme; localStorage.removeItem("flowrun-theme"); }
    setTheme(chosen);
  };
  const name = theme || "as the system";
  return html`<button type="button" class="icon" onClick=${next} title=${`theme: ${name}`}
    aria-label=${`Theme: ${name}`}>${{"": "◐", light: "☀", dark: "☾"}[theme]}</button>`;
}
