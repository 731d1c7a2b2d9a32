// @ts-check
// "Wrong answer": marks an answer in the run's labels, or takes the mark back.
import {post, why} from "../api.js";
import {html, useState} from "../html.js";
import {place} from "./moments.js";

/** @param {{run: string, moment: any, labels: any[], onChange: () => void, onClose: () => void}} props */
export function WrongPanel({run, moment, labels, onChange, onClose}) {
  const answers = Object.entries(moment?.answers ?? {});
  const [task, setTask] = useState("");
  const [expected, setExpected] = useState("");
  const [note, setNote] = useState("");
  const [said, setSaid] = useState("");
  const chosen = answers.some(([name]) => name === task) ? task : answers[0]?.[0] ?? "";
  const answer = moment?.answers[chosen];
  const cycle = answer?.cycle ?? moment?.cycle;
  const marked = labels.find(it => it.cycle === cycle && it.task === chosen);
  const send = async (/** @type {string} */ label) => {
    try {
      await post(`${place(run)}/labels`, {cycle: moment.cycle, task: chosen, label, expected, note});
      setSaid(label ? "Marked, in labels.jsonl of the run." : "Taken back.");
      onChange();
    } catch (error) {
      setSaid(why(error));
    }
  };
  const typed = (/** @type {(text: string) => void} */ set) => (/** @type {any} */ event) => set(event.target.value);
  return html`<div class="timeline-panel" role="region" aria-label="Wrong answer">
    ${!moment && html`<p>Reading the moment …</p>`}
    ${moment && html`
    <div class="timeline-fields">
      ${answers.length > 1 && html`<label>Answer of <select value=${chosen} onChange=${typed(setTask)}>
        ${answers.map(([name]) => html`<option value=${name} selected=${name === chosen}>${name}</option>`)}</select></label>`}
      ${answer ? html`<q class="timeline-answer">${answer.response}</q>` : html`<span>Nothing was answered until then; the moment is marked.</span>`}
    </div>
    <div class="timeline-fields">
      <label class="wide">It should have been <input value=${expected} onInput=${typed(setExpected)} placeholder=${marked?.expected ?? ""} /></label>
      <label class="wide">Note <input value=${note} onInput=${typed(setNote)} /></label>
      <button class="action" onClick=${() => send("wrong")}>${marked ? "Mark again" : "Mark as wrong"}</button>
      ${marked && html`<button onClick=${() => send("")}>Take back</button>`}
      <button class="link close" onClick=${onClose}>Close</button>
    </div>`}
    <p role="status">${said}</p>
  </div>`;
}
