// @ts-check
// The pictures, each at its own rate.
import {address} from "../api.js";
import {html, useEffect, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";

const AT_ONCE = 3;  // a browser opens six connections to a server, and needs some for the rest

export function Cameras() {
  const run = useKnown();
  const screens = run.showing("picture");
  const [shown, setShown] = useState(/** @type {string[] | null} */ (null));
  const [alone, setAlone] = useState(/** @type {string | null} */ (null));
  if (!run.report) return html`<section class="cameras" aria-label="Pictures"><p class="empty">Waiting for the run …</p></section>`;
  if (!screens.length) return html`<section class="cameras" aria-label="Pictures"><p class="empty">No task of this graph shows pictures.</p></section>`;
  const now = (shown ?? screens.slice(0, AT_ONCE)).filter(task => screens.includes(task));
  const drawn = alone && screens.includes(alone) ? [alone] : now;
  const live = run.connection === "open" && !run.over;
  /** @param {string} task */
  const toggle = task => setShown(now.includes(task) ? now.filter(other => other !== task) : [...now.slice(1 - AT_ONCE), task]);
  return html`<section class="cameras" aria-label="Pictures">
    <div class="grid of${drawn.length}">${drawn.map(task => html`<${Screen} key=${task} task=${task} live=${live}
      onAlone=${() => setAlone(alone ? null : task)} />`)}</div>
    ${screens.length > 1 && html`<div class="chips" role="group" aria-label="Which pictures">
      ${screens.map(task => html`<button type="button" class="preset" key=${task} aria-pressed=${now.includes(task)}
        onClick=${() => toggle(task)}>${task}</button>`)}</div>`}
  </section>`;
}

/** @param {{task: string, live: boolean, onAlone: () => void}} props */
function Screen({task, live, onAlone}) {
  const image = useRef(/** @type {HTMLImageElement | null} */ (null));
  const [came, setCame] = useState(false);
  useEffect(() => {
    const shown = image.current;
    if (!live || !shown) return;
    shown.src = address(`api/v0/streaming/video/${encodeURIComponent(task)}`, {since: Date.now()});
    // The last picture stays; what ends is the stream.
    return () => { if (document.hidden || !shown.isConnected) shown.removeAttribute("src"); };
  }, [live]);
  return html`<figure class="screen ${live ? "" : "over"}" onDblClick=${onAlone}>
    <img ref=${image} alt=${`live picture of ${task}`} onLoad=${() => setCame(true)} />
    ${!came && live && html`<span class="wait">waiting for a picture …</span>`}
    ${!live && html`<span class="wait">not live</span>`}
    <figcaption><b>${task}</b>
      <a href=${address(`api/v0/streaming/image/${encodeURIComponent(task)}`, {latest: 1})} download=${`${task}.jpg`}>Snapshot</a></figcaption>
  </figure>`;
}
