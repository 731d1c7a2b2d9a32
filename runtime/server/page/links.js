// @ts-check
// The links of a fleet, of which each of its processes says its own.

/** @typedef {import("./known.js").Part} Part */
/** @typedef {import("./known.js").Link} Link */
/** behind_s: what the receiver lacks, as long as the sender took for it.
 * @typedef {{sender: string, receiver: string, link: Link, behind_s: number | null}} Between */

/** Each link once: as its receiver says it, or its sender where that is gone. @param {Part[]} fleet @returns {Between[]} */
export function linksOf(fleet) {
  /** @type {Map<string, Between>} */ const found = new Map();
  const rates = Object.fromEntries(fleet.map(({part, cycle_rate_hz}) => [part, cycle_rate_hz]));
  for (const gone of [false, true])
    for (const {part, links} of fleet.filter(({state}) => (state === "gone") === gone))
      for (const link of links) {
        const [sender, receiver] = link.direction === "in" ? [link.peer, part] : [part, link.peer];
        const key = `${sender} ${receiver}`;
        if (found.has(key) && (gone || link.direction === "out")) continue;
        found.set(key, {sender, receiver, link, behind_s: rates[sender] ? link.lag_cycles / rates[sender] : null});
      }
  return [...found.values()].sort((a, b) => a.sender < b.sender ? -1 : a.sender > b.sender ? 1 : a.receiver < b.receiver ? -1 : 1);
}

/** What is wrong in a fleet, in words. @param {Part[]} fleet */
export const troublesOf = fleet => [
  ...fleet.filter(({state}) => ["gone", "failed", "stuck"].includes(state)).map(({part, state}) => `${part} ${state === "failed" ? "has failed" : `is ${state}`}`),
  ...linksOf(fleet).flatMap(({sender, receiver, link}) => link.state === "refused" ? [`${receiver} refuses ${sender}`] : []),
];
