// @ts-check
// The two fields of a part of the run, in cycles.
import {html} from "../html.js";

/** @param {{range: import("./scale.js").Span, onRange: (range: import("./scale.js").Span) => void}} props */
export function RangeFields({range, onRange}) {
  const field = (/** @type {"from" | "to"} */ name) => html`<label>${name === "from" ? "From cycle" : "To cycle"}
    <input type="number" min="0" value=${range[name]} onChange=${(/** @type {any} */ event) => {
      const value = Math.max(0, Math.floor(Number(event.target.value) || 0));
      onRange(name === "from" ? {from: value, to: Math.max(value, range.to)} : {from: Math.min(value, range.from), to: value});
    }} /></label>`;
  return html`${field("from")}${field("to")}`;
}
