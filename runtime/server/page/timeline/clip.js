// @ts-check
// "Make it a test": a part of the run as a file, and the two lines of pytest that replay it.
import {address, get, why} from "../api.js";
import {html, useEffect, useState} from "../html.js";
import {place} from "./moments.js";
import {RangeFields} from "./range.js";

/** @param {{run: string, range: import("./scale.js").Span,
 *   onRange: (range: import("./scale.js").Span) => void, onClose: () => void}} props
 */
export function ClipPanel({run, range, onRange, onClose}) {
  const [test, setTest] = useState(/** @type {{file: string, url: string, text: string} | null} */ (null));
  const [said, setSaid] = useState("");
  useEffect(() => {
    let over = false;
    get(`${place(run)}/test`, range).then(
      found => { if (!over) { setTest(found); setSaid(""); } },
      error => { if (!over) { setTest(null); setSaid(why(error)); } });
    return () => { over = true; };
  }, [run, range.from, range.to]);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(test?.text ?? "");
      setSaid("Copied.");
    } catch {
      setSaid("The browser does not let the page copy; mark the lines instead.");
    }
  };
  return html`<div class="timeline-panel" role="region" aria-label="Make it a test">
    <div class="timeline-fields"><${RangeFields} range=${range} onRange=${onRange} />
      ${test && html`<a class="action" href=${address(`${place(run)}/clip`, range)} download=${test.file}>Download the clip</a>
      <button onClick=${copy}>Copy the test</button>`}
      <button class="link close" onClick=${onClose}>Close</button></div>
    ${test && html`<p>The clip goes next to the test, which replays it with the present code and compares every message.</p>
    <pre class="timeline-code" tabindex="0" role="region" aria-label="The test"><code>${test.text}</code></pre>`}
    <p role="status">${said}</p>
  </div>`;
}
