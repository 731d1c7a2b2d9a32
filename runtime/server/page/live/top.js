// @ts-check
// The bar at the top: which run, how it is, and what may be done with it.
import {address, get, post, why} from "../api.js";
import {html, useEffect, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {bytes, count, duration} from "../words.js";

/** @param {{say: (text: string, bad?: boolean) => void, onRun: (id: string | null) => void, chosen: string | null}} props */
export function Top({say, onRun, chosen}) {
  const run = useKnown();
  const {state, text, detail} = run.state;
  const report = run.report;
  useEffect(() => { document.body.dataset.state = state; }, [state]);
  useEffect(() => { document.title = report ? `${report.id} - flowrun` : "flowrun"; }, [report?.id]);
  /** @param {string} verb */
  const ask = async verb => {
    try {
      const reply = await post(`api/v0/pipeline/${verb}`, {pipeline_id: report?.id});
      say(reply.message ?? "Done.");
    } catch (error) {
      say(why(error), true);
    }
  };
  const going = !run.over && !!report && run.connection === "open";
  return html`<header class="top">
    <h1>${report?.id ?? "flowrun"}</h1>
    <${Runs} chosen=${chosen} onRun=${onRun} />
    <span id="state" class="state ${state}" role="status"><b>${text}</b>${detail && html`<span class="detail">${detail}</span>`}</span>
    <dl class="facts">
      <div><dd>${report ? report.cycle_rate_hz.toFixed(1) : "–"}</dd><dt>cycles/s</dt></div>
      <div><dt>cycle</dt><dd>${count(report?.cycles)}</dd></div>
      <div><dt>up</dt><dd>${duration(report?.uptime_s)}</dd></div>
      <div><dt>log</dt><dd>${report ? report.log ? bytes(report.log.bytes) : "off" : "–"}</dd></div>
    </dl>
    <div class="buttons">
      ${state === "paused"
        ? html`<button type="button" disabled=${!going} onClick=${() => ask("resume")}>Resume</button>`
        : html`<button type="button" disabled=${!going} onClick=${() => ask("pause")}>Pause</button>`}
      <button type="button" disabled=${!going} onClick=${() => ask("stop")}>Stop</button>
      <${LogMenu} say=${say} />
      <${Theme} />
    </div>
  </header>`;
}

/** Other runs to look at, where there are any. @param {{chosen: string | null, onRun: (id: string | null) => void}} props */
function Runs({chosen, onRun}) {
  const [runs, setRuns] = useState(/** @type {any[]} */ ([]));
  const load = () => get("api/v0/runs").then(setRuns, () => setRuns([]));
  return html`<select aria-label="Run" hidden=${runs.length < 2} value=${chosen ?? ""} onFocus=${load}
      onChange=${(/** @type {any} */ event) => onRun(event.target.value || null)}>
    <option value="">live</option>
    ${runs.map(({id}) => html`<option value=${id}>${id}</option>`)}
  </select>`;
}

/** Everything about the log of the run. @param {{say: (text: string, bad?: boolean) => void}} props */
function LogMenu({say}) {
  const {report} = useKnown();
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
    <a role="menuitem" href=${address("api/v0/runs/current/log.mcap")} download>Download MCAP</a>
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
