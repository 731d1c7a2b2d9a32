// @ts-check
// The page of flowrun serve: every graph of the folder, what it is doing, and what may be done with it.
import {address, get, inOrder, post, why} from "./api.js";
import {html, render, useEffect, useLayoutEffect, useMemo, useState} from "./html.js";
import {useSaid} from "./said.js";
import {counted} from "./words.js";

const LOOK_MS = 1000;
const PATIENCE_MS = 5000;
const ACTIONS = /** @type {const} */ ([["start", "Start"], ["stop", "Stop"], ["restart", "Restart"]]);

/** @typedef {import("./known.js").Phase} Phase */
/** @typedef {Required<import("./known.js").Pipeline>} Pipeline */
/** What each phase is called, and how it looks. @type {Record<Phase, [string, string]>} */
const PHASES = {stopped: ["Stopped", ""], starting: ["Starting", "hold"], running: ["Running", "good"],
  stopping: ["Stopping", "hold"], failed: ["Error", "slow"], waiting: ["Restarting", "fair"]};

function Overview() {
  const [pipelines, setPipelines] = useState(/** @type {Pipeline[] | null} */ (null));
  const [gone, setGone] = useState("");
  const [say, said] = useSaid();
  const [busy, setBusy] = useState(/** @type {string[]} */ ([]));
  const ordered = useMemo(inOrder, []);
  const look = () => ordered(get("api/v0/pipeline/list", {}, AbortSignal.timeout(PATIENCE_MS)),
    found => { setPipelines(found); setGone(""); }, error => setGone(why(error)));
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) look(); }, LOOK_MS);
    look();
    return () => clearInterval(timer);
  }, []);
  useLayoutEffect(() => { document.body.dataset.state = gone ? "gone" : pipelines ? "running" : "loading"; }, [gone, pipelines]);
  /** @param {string} verb @param {string} id */
  const ask = async (verb, id) => {
    setBusy(now => [...now, id]);
    try {
      say((await post(`api/v0/pipeline/${verb}`, {pipeline_id: id})).message);
    } catch (error) {
      say(why(error), true);
    }
    await look();  // before the buttons, so that none is offered for what was
    setBusy(now => now.filter(other => other !== id));
  };
  return html`
    <header class="top">
      <h1>flowrun serve</h1>
      ${gone && html`<span class="state gone" role="status"><b>Server gone</b><span class="detail">${gone}</span></span>`}
      <div class="buttons facts"><a href=${address("recorded/")}>Recorded runs</a><a href=${address("docs")}>HTTP API</a></div>
    </header>
    <main class="overview"><section aria-label="Pipelines">
      ${pipelines?.length === 0 && html`<p class="empty">The folder holds no graph file yet.</p>`}
      ${pipelines && pipelines.length > 0 && html`<table>
        <thead><tr><th>pipeline</th><th>state</th><th>details</th><th>actions</th></tr></thead>
        <tbody>${pipelines.map(one => html`<${Row} key=${one.id} one=${one} ask=${ask} busy=${busy.includes(one.id)} gone=${!!gone} />`)}</tbody>
      </table>`}
    </section></main>
    ${said}`;
}

/** @param {{one: Pipeline, ask: (verb: string, id: string) => void, busy: boolean, gone: boolean}} props
 *   busy: whether it was asked for something that is not done; gone: whether the server cannot be asked */
function Row({one, ask, busy, gone}) {
  const [word, mood] = PHASES[one.phase];
  const error = typeof one.status === "object" ? one.status.Error : "";
  const runs = ["starting", "running"].includes(one.phase);
  const may = {start: !runs && one.phase !== "stopping", stop: runs || !!error || one.phase === "waiting", restart: runs};
  const details = [
    one.next_start_s !== null && `starts again in ${Math.ceil(one.next_start_s)} s`,
    one.restarts > 0 && `started again ${counted(one.restarts, "time")}`,
    one.pid && `process ${one.pid}`,
  ].filter(Boolean).join(", ");
  return html`<tr data-pipeline=${one.id} data-status=${error ? "Error" : one.status} data-phase=${one.phase}>
    <th scope="row"><a href=${address(`pipelines/${encodeURIComponent(one.id)}/`)}>${one.id}</a></th>
    <td><span class="pill ${gone ? "" : mood}">${gone ? `was ${word.toLowerCase()}` : word}</span></td>
    <td><div class="error">${error}</div><small>${details}</small>${Object.keys(one.parts).length > 0 && html`<ul class="parts" aria-label="Partitions">${Object.entries(one.parts)
      .map(([part, state]) => html`<li key=${part} data-part=${part} class=${state.startsWith("failed") ? "failed" : ""}>${part}: ${state}</li>`)}</ul>`}</td>
    <td><div class="buttons">
      ${ACTIONS.map(([verb, name]) => html`<button type="button" aria-label=${`${name} ${one.id}`} disabled=${busy || gone || !may[verb]}
        onClick=${() => ask(verb, one.id)}>${name}</button>`)}
    </div></td>
  </tr>`;
}

document.body.replaceChildren();
render(html`<${Overview} />`, document.body);
