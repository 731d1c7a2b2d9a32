// @ts-check
// Which cycle and which time is where in the lanes.

/** What `GET .../lanes` gives.
 * @typedef {{kind: string, task: string, counts: number[]}} Lane
 * @typedef {{from_cycle: number, to_cycle: number, first_cycle: number, last_cycle: number, from_ns: number,
 *   to_ns: number, cycles: number[], frames: number[], lanes: Lane[], state: string, why: string | null,
 *   missing: string[], start_ns: number, end_ns: number, keys?: number[], gaps: Gap[]}} Lanes
 * @typedef {{from_cycle: number, to_cycle: number, from_ns: number, to_ns: number}} Gap what was not recorded
 * @typedef {{from: number, to: number}} Span cycles, both included
 * @typedef {{kind: string, task: string, marks: number[]}} Marks cycles that are marked
 */

const FEWEST = 8;

/** The cycle at a part of the width. @param {Lanes} lanes @param {number} part from 0 to 1 */
export function cycleAt(lanes, part) {
  const ns = timeAt(lanes, part);
  const gap = lanes.gaps.find(({from_ns, to_ns}) => from_ns < ns && ns < to_ns);
  if (gap) return gap.from_cycle + Math.floor((gap.to_cycle - gap.from_cycle + 1) * (ns - gap.from_ns) / (gap.to_ns - gap.from_ns));
  const {cycles, frames} = lanes;
  const at = Math.min(Math.max(part, 0), 1) * frames.length;
  const bin = Math.min(Math.floor(at), frames.length - 1);
  const cycle = Math.floor(cycles[bin] + (cycles[bin + 1] - cycles[bin]) * (at - bin));
  return Math.min(Math.max(cycle, lanes.from_cycle), lanes.to_cycle);
}
/** The cycle to show while somebody drags there: with a key frame, whose picture is there soonest, if there is
 * one not farther away than the parts are wide. @param {Lanes} lanes @param {number} part
 */
export function cycleNear(lanes, part) {
  const exact = cycleAt(lanes, part);
  if (isIn(lanes.gaps, exact)) return exact;
  const bin = Math.min(Math.floor(part * lanes.frames.length), lanes.frames.length - 1);
  const key = lanes.keys?.[bin];
  const wide = Math.max(1, lanes.cycles[bin + 1] - lanes.cycles[bin]);
  if (key === undefined || key < lanes.from_cycle || lanes.cycles[bin] - key > wide) return exact;
  return key;
}
/** The part of the width at which a cycle is; less than 0 or more than 1 where it is outside.
 * @param {Lanes} lanes @param {number} cycle
 */
export function partAt(lanes, cycle) {
  const gap = lanes.gaps.find(({from_cycle, to_cycle}) => from_cycle <= cycle && cycle <= to_cycle);
  if (gap) {
    const at = (cycle + .5 - gap.from_cycle) / (gap.to_cycle - gap.from_cycle + 1);
    return (gap.from_ns + (gap.to_ns - gap.from_ns) * at - lanes.from_ns) / Math.max(1, lanes.to_ns - lanes.from_ns);
  }
  const {cycles, frames} = lanes;
  if (cycle < cycles[0]) return -1;
  let [low, high] = [0, frames.length];  // the last edge at or before the cycle
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (cycles[middle] <= cycle) low = middle; else high = middle - 1;
  }
  if (low === frames.length) return 2;
  return (low + (cycle - cycles[low]) / Math.max(1, cycles[low + 1] - cycles[low])) / frames.length;
}
/** Whether a cycle was not recorded. @param {Gap[]} gaps @param {number} cycle */
export const isIn = (gaps, cycle) => gaps.some(({from_cycle, to_cycle}) => from_cycle <= cycle && cycle <= to_cycle);
/** The time at a part of the width, in nanoseconds. @param {Lanes} lanes @param {number} part */
export const timeAt = (lanes, part) => lanes.from_ns + (lanes.to_ns - lanes.from_ns) * part;
/** The cycle at a time. @param {Lanes} lanes @param {number} ns */
export const cycleOfTime = (lanes, ns) =>
  cycleAt(lanes, (ns - lanes.from_ns) / Math.max(1, lanes.to_ns - lanes.from_ns));

/** A part of the run around a cycle, `factor` times as long as the present one; null for all of it.
 * @param {Lanes} lanes @param {number} around @param {number} factor @returns {Span | null}
 */
export function zoomed(lanes, around, factor) {
  const {from_cycle: from, to_cycle: to, first_cycle: first, last_cycle: last} = lanes;
  const long = Math.max(FEWEST, Math.round((to - from + 1) * factor));
  if (long >= last - first + 1) return null;
  const before = Math.round((around - from) / Math.max(1, to - from) * long);
  const begin = Math.min(Math.max(first, around - before), last - long + 1);
  return {from: begin, to: begin + long - 1};
}
/** @param {Lanes} lanes @param {number} by cycles @returns {Span | null} */
export function shifted(lanes, by) {
  const long = lanes.to_cycle - lanes.from_cycle;
  if (lanes.first_cycle + long >= lanes.last_cycle) return null;
  const begin = Math.min(Math.max(lanes.first_cycle, lanes.from_cycle + by), lanes.last_cycle - long);
  return {from: begin, to: begin + long};
}
