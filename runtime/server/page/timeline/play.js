// @ts-check
// Playing a recorded run: moments one after the other, as fast as they come.
import {useEffect, useRef} from "../html.js";
import {cycleOfTime, partAt, timeAt} from "./scale.js";
import {loadMoment} from "./moments.js";
import {drawn} from "./pictures.js";

export const SPEEDS = [.1, .25, .5, 1, 2, 5, 10, 60];

/** Moves on while `playing`; a moment is shown before the next one is asked for.
 * @param {{run: string, playing: boolean, speed: number, cycle: number | null,
 *   whole: import("./scale.js").Lanes | null, onMoment: (cycle: number) => void, onEnd: () => void}} options
 */
export function usePlayback({run, playing, speed, cycle, whole, onMoment, onEnd}) {
  const now = useRef({cycle, whole, onMoment, onEnd});
  now.current = {cycle, whole, onMoment, onEnd};
  useEffect(() => {
    if (!playing) return undefined;
    let over = false;
    let last = performance.now();
    /** @type {{cycle: number | null, was: number | null, ns: number}} was: what is shown until `cycle` is */
    let at = {cycle: null, was: null, ns: 0};
    async function go() {
      while (!over) {
        await new Promise(requestAnimationFrame);
        const {cycle, whole, onMoment, onEnd} = now.current;
        const passed = performance.now() - last;
        last += passed;
        if (over || !whole || cycle === null) continue;
        if (at.cycle !== cycle && at.was === cycle) continue;
        if (at.cycle !== cycle) {  // somebody went elsewhere
          at = {cycle, was: null, ns: timeAt(whole, partAt(whole, cycle))};
          try {
            at.ns = (await loadMoment(run, cycle)).at_ns;
          } catch { /* the time by its place will do */ }
          last = performance.now();
          continue;
        }
        at.ns += passed * 1e6 * speed;
        if (cycle >= whole.last_cycle) { over = true; onEnd(); continue; }
        const next = Math.max(cycle, cycleOfTime(whole, at.ns));
        if (next === cycle && at.ns < whole.to_ns) continue;
        at.was = cycle;
        at.cycle = next === cycle ? cycle + 1 : next;
        onMoment(at.cycle);
        if (await loadMoment(run, at.cycle).catch(() => null)) await drawn(at.cycle, () => over);
      }
    }
    go();
    return () => { over = true; };
  }, [playing, speed, run]);
}
