// @ts-check
// The frame that an answer is about.
import {address} from "../api.js";
import {html, useEffect, useState} from "../html.js";
import {useKnown} from "../known.js";
import {place} from "../timeline/moments.js";
import {drawn} from "../timeline/pictures.js";

const WIDE = 192;  // twice as wide as it is shown, for fine screens
const TRIES = 4;
const RETRY_MS = 1500;
const REST_MS = 300;  // whoever drags past a moment does not want its frames

/** The picture of a task in a cycle, from the log. Nothing where the log does not have it.
 * @param {{task: string, cycle: number}} props */
export function Frame({task, cycle}) {
  const run = useKnown();
  const [tries, setTries] = useState(0);
  const [waits, setWaits] = useState(false);
  const [rested, setRested] = useState("");
  const its = `${task} ${cycle}`;
  useEffect(() => {
    setTries(0);
    setWaits(false);
    let over = false;
    const timer = setTimeout(async () => {
      await drawn(null, () => over);  // the server would decode while the browser does, on the same cores
      if (!over) setRested(its);
    }, REST_MS);
    return () => { over = true; clearTimeout(timer); };
  }, [its]);
  useEffect(() => {  // the cycle may not be in the log yet
    if (!waits || tries >= TRIES) return;
    const timer = setTimeout(() => { setTries(tries + 1); setWaits(false); }, RETRY_MS);
    return () => clearTimeout(timer);
  }, [waits]);
  if (!task || !run.graph || !run.logs || tries >= TRIES) return null;
  const inLog = run.over || (run.report?.cycles ?? 0) > cycle;  // its cycle has ended
  const path = `${place(run.logged)}/image/${encodeURIComponent(task)}`;
  return html`<a class="thumb" href=${address(path, {cycle})} target="_blank" rel="noreferrer" aria-label=${`frame of cycle ${cycle}`}>
    ${!waits && inLog && (run.moment === null || rested === its) && html`<img src=${address(path, {cycle, width: WIDE})} alt="" loading="lazy" decoding="async" onError=${() => setWaits(true)} />`}</a>`;
}
