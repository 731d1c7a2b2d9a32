// @ts-check
// The page of flowrun serve: every graph of the folder, what it is doing, and what may be done with it.
import {address, get, post, why} from "./api.js";
import {html, render, useEffect, useState} from "./html.js";

const LOOK_MS = 1000;
const ACTIONS = /** @type {const} */ ([["start", "Start"], ["stop", "Stop"], ["restart", "Restart"]]);

/** @typedef {{id: string, status: "Running" | "Stopped" | {Error: string}, pid: number | null, restarts: number, next_start_s: number | null}} Pipeline */

function Overview() {
  const [pipelines, setPipelines] = useState(/** @type {Pipeline[] | null} */ (null));
  const [gone, setGone] = useState("");
  const [said, setSaid] = useState({text: "", bad: false});
  const [busy, setBusy] = useState(/** @type {string[]} */ ([]));
  const look = () => get("api/v0/pipeline/list").then(
    found => { setPipelines(found); setGone(""); }, error => setGone(why(error)));
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) look(); }, LOOK_MS);
    look();
    return () => clearInterval(timer);
  }, []);
  useEffect(() => { document.body.dataset.state = gone ? "gone" : pipelines ? "running" : "loading"; }, [gone, pipelines]);
  /** @param {string} verb @param {string} id */
  const ask = async (verb, id) => {
    setBusy(now => [...now, id]);
    try {
      setSaid({text: (await post(`api/v0/pipeline/${verb}`, {pipeline_id: id})).message, bad: false});
    } catch (error) {
      setSaid({text: why(error), bad: true});
    }
    setBusy(now => now.filter(other => other !== id));
    look();
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
        <tbody>${pipelines.map(one => html`<${Row} key=${one.id} one=${one} ask=${ask} busy=${busy.includes(one.id)} />`)}</tbody>
      </table>`}
    </section></main>
    <div id="said" role="status" class=${said.bad ? "bad" : ""}>${said.text}</div>`;
}

/** @param {{one: Pipeline, ask: (verb: string, id: string) => void, busy: boolean}} props */
function Row({one, ask, busy}) {
  const runs = one.status === "Running";
  const error = typeof one.status === "object" ? one.status.Error : "";
  const waits = one.next_start_s !== null;
  const may = {start: !runs, stop: runs || !!error || waits, restart: runs};
  const details = [
    waits && `starts again in ${Math.ceil(one.next_start_s ?? 0)} s`,
    one.restarts > 0 && `started again ${one.restarts} times`,
    runs && one.pid && `process ${one.pid}`,
  ].filter(Boolean).join(", ");
  return html`<tr data-pipeline=${one.id} data-status=${error ? "Error" : one.status}>
    <th scope="row"><a href=${address(`pipelines/${encodeURIComponent(one.id)}/`)}>${one.id}</a></th>
    <td><span class="pill ${runs ? "good" : error ? "slow" : ""}">${error ? "Error" : one.status}</span></td>
    <td><div class="error">${error}</div><small>${details}</small></td>
    <td><div class="buttons">
      ${ACTIONS.map(([verb, word]) => html`<button type="button" aria-label=${`${word} ${one.id}`} disabled=${busy || !may[verb]}
        onClick=${() => ask(verb, one.id)}>${word}</button>`)}
    </div></td>
  </tr>`;
}

document.body.replaceChildren();
render(html`<${Overview} />`, document.body);
