// @ts-check
// The moments of a run, and asking for the newest of what somebody wants.
import {get} from "../api.js";

const KEPT = 200;
/** @type {Map<string, Promise<any>>} */
const kept = new Map();

/** Where a run is in the API. @param {string} base @param {string} run */
export const place = (base, run) => `${base}api/v0/runs/${encodeURIComponent(run)}`;

/** Everything of the moment of a cycle; asked for once. What is at the end of a run that goes on is
 * asked for again.
 * @param {string} base @param {string} run @param {number} cycle @returns {Promise<any>}
 */
export function loadMoment(base, run, cycle) {
  const key = `${base} ${run} ${cycle}`;
  let found = kept.get(key);
  if (!found) {
    found = get(`${place(base, run)}/moment`, {cycle});
    kept.set(key, found);
    const forget = () => { if (kept.get(key) === found) kept.delete(key); };
    found.then(moment => { if (moment.next === null) forget(); }, forget);
    while (kept.size > KEPT) kept.delete(/** @type {string} */ (kept.keys().next().value));
  }
  return found;
}

/** A function to ask with. While an answer is awaited, of what is asked only the newest is remembered.
 * @template Q, A
 * @param {(question: Q) => Promise<A>} load
 * @param {(answer: A, question: Q) => void} done
 * @param {(error: unknown) => void} failed
 */
export function newest(load, done, failed) {
  let busy = false;
  /** @type {{question: Q} | null} */
  let next = null;
  /** @param {Q} question */
  return async function ask(question) {
    next = {question};
    if (busy) return;
    busy = true;
    while (next) {
      const asked = next.question;
      next = null;
      try {
        const answer = await load(asked);
        if (!next) done(answer, asked);
      } catch (error) {
        if (!next) failed(error);
      }
    }
    busy = false;
  };
}
