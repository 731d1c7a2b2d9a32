// @ts-check
// What remains to be done after the end of a run.
import {address} from "../api.js";
import {html, useState} from "../html.js";
import {useKnown} from "../known.js";
import {bytes, count, duration} from "../words.js";

export function EndCard() {
  const run = useKnown();
  const [closed, close] = useState(false);
  const {state, detail} = run.state;
  if (closed || !["ended", "gone"].includes(state) || !run.report) return null;
  const {report} = run;
  const failed = typeof report.status === "object";
  const path = report.log?.path;
  return html`<section class="end ${failed ? "bad" : ""}" aria-labelledby="end-title" id="end">
    <h2 id="end-title">${state === "gone" ? "The server cannot be reached" : failed ? "The run ended with an error" : "The run has ended"}</h2>
    <p class="why">${state === "gone" ? "The run has probably ended. What this page shows is its last state." : detail || "What this page shows is its last state."}</p>
    <p>${count(report.cycles)} cycles in ${duration(report.uptime_s)}${report.log ? `, ${count(report.log.messages)} messages, ${bytes(report.log.bytes)}` : ", no log"}</p>
    ${path && html`<p>Have it again: <code>flowrun replay ${path}</code></p>`}
    <div class="buttons">
      <button type="button" onClick=${() => close(true)}>Look at it</button>
    </div>
  </section>`;
}
