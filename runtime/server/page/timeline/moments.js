// @ts-check
// The moments of a run.
import {get} from "../api.js";
import {useEffect, useState} from "../html.js";

const KEPT = 200;
/** @type {Map<string, Promise<any>>} */
const kept = new Map();

/** Where a run is in the API. @param {string} run */
export const place = run => `api/v0/runs/${encodeURIComponent(run)}`;

/** Everything of the moment of a cycle but its pictures, of which it says where they are. Asked for once; what is at
 * the end of a run that goes on is asked for again.
 * @param {string} run @param {number} cycle @returns {Promise<any>}
 */
export function loadMoment(run, cycle) {
  const key = `${run} ${cycle}`;
  let found = kept.get(key);
  if (!found) {
    found = get(`${place(run)}/moment`, {cycle}).then(moment => {
      for (const image of Object.values(moment.images)) Object.assign(image, {whole: image.url, url: `${image.url}&width=${wide()}`});
      return moment;
    });
    kept.set(key, found);
    const forget = () => { if (kept.get(key) === found) kept.delete(key); };
    found.then(moment => { if (moment.next === null) forget(); }, forget);
    while (kept.size > KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
  }
  return found;
}

const REST_MS = 120;

/** What a path of the run gives for the moment that is looked at: asked for when the moment rests. Null before
 * the first reply, and where nobody looks back.
 * @param {import("../known.js").Known} run @param {string} path such as "lines"
 * @param {Record<string, string | number>} query what it depends on
 */
export function useThen(run, path, query) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const back = run.moment !== null;
  useEffect(() => {
    if (!back) { setFound(null); return undefined; }
    let over = false;
    const timer = setTimeout(() => get(`${place(run.logged)}/${path}`, query).then(
      reply => { if (!over) setFound(reply); }, () => { if (!over) setFound(null); }), REST_MS);
    return () => { over = true; clearTimeout(timer); };
  }, [back, run.logged, path, JSON.stringify(query)]);
  return back ? found : null;
}

/** How wide a picture is shown, in pixels of the screen; in steps, so that few sizes are asked for. */
export function wide() {
  const shown = (document.querySelector(".screen")?.clientWidth ?? innerWidth) * (devicePixelRatio || 1);
  return Math.min(Math.max(480, 320 * Math.ceil(shown / 320)), 4096);
}
