// @ts-check
// All recorded runs of a fleet: when each partition ran, how late its links were, and one time line of them.
import {html, useEffect, useRef, useState} from "../html.js";
import {useKnown} from "../known.js";
import {clock, count, duration, millis} from "../words.js";

/** @typedef {import("../known.js").RecordedFleet} Recorded */
/** @typedef {import("../known.js").RecordedPart} Part */
/** @typedef {import("../known.js").RecordedLink} Link */

const AGAIN_MS = 3000;
const ROW = 17;
const WIDE = 1000;
const MOST_GAPS = 20;
/** @type {Record<string, string>} */
const MOODS = {running: "good", ended: "", error: "slow", "cut off": "slow", unreadable: "slow"};

/** @param {{fleet: Recorded}} props */
export function RecordedFleet({fleet}) {
  const run = useKnown();
  const goes = fleet.parts.some(part => part.runs.some(({state}) => state === "running"));
  useEffect(() => {
    const timer = goes ? setTimeout(() => { if (run.recorded !== null) run.loadFleet(run.recorded); }, AGAIN_MS) : 0;
    return () => clearTimeout(timer);
  }, [fleet]);
  const shown = (/** @type {Part} */ {runs}) => runs.some(({id}) => id === run.recorded);
  // A run's page has the time of its own machine.
  const asked = useRef(fleet.to_ns); // what is shown until the run's moment has come
  const at = run.then ? run.then.at_ns - (fleet.parts.find(shown)?.ahead_ns ?? 0) : asked.current;
  /** The partition's page at a time: its last run that had begun then. @param {Part} part @param {number} ns */
  const open = ({runs, ahead_ns}, ns) => {
    const begun = runs.filter(({from_ns}) => from_ns !== null);
    const found = begun.filter(({from_ns}) => Number(from_ns) <= ns).at(-1) ?? begun[0];
    asked.current = ns;
    if (found) run.open(found.id, {at_ns: ns + (ahead_ns ?? 0)});
  };
  return html`<div class="scroll fleet" tabindex="0" role="region" aria-label="Partitions and links">
    <${Line} fleet=${fleet} at=${at} onOpen=${open} />
    <table aria-label="Partitions"><thead><tr><th scope="col">partition</th><th scope="col">state</th><th scope="col">began</th>
      <th scope="col">ran</th><th scope="col">cycles</th><th scope="col">errors</th><th scope="col">dropped</th><th scope="col">restarts</th></tr></thead>
    <tbody>${fleet.parts.map(part => html`<${PartRow} key=${part.part} part=${part} own=${shown(part)} onOpen=${() => open(part, at)} />`)}</tbody></table>
    ${fleet.links.length > 0 && html`<table aria-label="Links"><thead><tr><th scope="col">link</th><th scope="col">came</th>
      <th scope="col" title="half of what came was no later than this after it was made, and 99 of 100">later by (p50, p99)</th><th scope="col">at most</th>
      <th scope="col" title="messages in the sender's logs that the receiver has not taken">left</th><th scope="col">gaps</th><th scope="col">passed over</th>
      <th scope="col">reconnects</th><th scope="col" title="by how much the sender's clock was ahead; how late what came was is corrected by it">clock</th></tr></thead>
    <tbody>${fleet.links.map(link => html`<${LinkRow} key=${`${link.sender} ${link.receiver}`} link=${link}
      onOpen=${(/** @type {number} */ ns) => open(partOf(fleet, link.receiver), ns)} />`)}</tbody></table>`}
  </div>`;
}

/** @param {Recorded} fleet @param {string} name */
const partOf = (fleet, name) => /** @type {Part} */ (fleet.parts.find(({part}) => part === name));

/** @param {{part: Part, own: boolean, onOpen: () => void}} props */
function PartRow({part, own, onOpen}) {
  const {runs, errors, dropped, restarts, cycles} = part;
  const last = runs.at(-1);
  const long = runs.reduce((sum, {from_ns, to_ns}) => sum + (Number(to_ns) - Number(from_ns)) / 1e9, 0);
  const wrong = last && last.state !== "ended" && last.why;
  const unknown = cycles > 0 && part.ahead_ns === null;
  return html`<tr data-part=${part.part} data-state=${last?.state ?? "absent"}><th scope="row">${own || !cycles
      ? part.part : html`<button type="button" class="link" title="show it at the same moment" onClick=${onOpen}>${part.part}</button>`}${own && html` <small>this page</small>`}</th>
    <td><span class="pill ${MOODS[last?.state ?? ""] ?? ""}">${last?.state ?? "no log here"}</span></td>
    <td>${runs[0]?.from_ns ? clock(runs[0].from_ns) : "–"}</td><td>${last ? duration(long) : "–"}</td><td>${count(cycles)}</td>
    <td class=${errors ? "wrong" : ""}>${count(errors)}</td><td>${count(dropped)}</td><td>${count(restarts)}</td></tr>
  ${wrong && html`<tr class="said-last"><td colspan="8">${part.part}: ${wrong}</td></tr>`}
  ${unknown && html`<tr class="said-last unsure"><td colspan="8">${part.part}: the logs do not say how far its clock was from the others'. Its times are by its own.</td></tr>`}`;
}

/** @param {{link: Link, onOpen: (ns: number) => void}} props */
function LinkRow({link, onOpen}) {
  const {sender, receiver, cycles, delay_ms, left, gaps, skipped, reconnects, clock_offset_ms: offset} = link;
  return html`<tr data-link=${`${sender} ${receiver}`}><th scope="row">${sender} → ${receiver}</th>
    <td>${count(cycles)}</td><td>${delay_ms ? `${millis(delay_ms.p50)}, ${millis(delay_ms.p99)}` : "–"}</td><td>${millis(delay_ms?.most)}</td>
    <td class=${left ? "wrong" : ""}>${count(left)}</td><td class=${gaps.length ? "wrong" : ""}>${count(gaps.length)}</td><td>${count(skipped)}</td>
    <td>${count(reconnects)}</td><td>${offset === null ? "not known" : `${offset > 0 ? "+" : ""}${offset.toFixed(1)} ms`}</td></tr>
  ${cycles > 0 && offset === null && html`<tr class="said-last unsure"><td colspan="9">${sender} → ${receiver}: the logs do not say by how much the clocks
    differed. How late what came was is by the clock of each.</td></tr>`}
  ${gaps.slice(0, MOST_GAPS).map(({at_ns, text}) => html`<tr class="said-last" key=${at_ns}><td colspan="9">
    <button type="button" class="link" onClick=${() => onOpen(at_ns)}>${clock(at_ns)}</button> ${text}</td></tr>`)}`;
}

/** One time line: a row for each partition, where its runs are bars, and one for each link, which is as high as what
 * came was late. The tables say the same in words.
 * @param {{fleet: Recorded, at: number, onOpen: (part: Part, ns: number) => void}} props at: the moment that is shown
 */
function Line({fleet, at, onOpen}) {
  const [hover, setHover] = useState(/** @type {number | null} */ (null));
  const {from_ns, to_ns, parts, links} = fleet;
  const rows = [...parts.map(it => it.part), ...links.map(it => `${it.sender} → ${it.receiver}`)];
  const x = (/** @type {number} */ ns) => WIDE * Math.min(Math.max((ns - from_ns) / Math.max(1, to_ns - from_ns), 0), 1);
  const height = ROW * rows.length;
  const place = (/** @type {PointerEvent} */ event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    return {part: (event.clientX - box.left) / box.width, row: Math.floor((event.clientY - box.top) / box.height * rows.length)};
  };
  const timeOf = (/** @type {number} */ part) => from_ns + (to_ns - from_ns) * part;
  const click = (/** @type {PointerEvent} */ event) => {
    const {part, row} = place(event);
    const name = row < parts.length ? parts[row].part : links[Math.min(row - parts.length, links.length - 1)].receiver;
    onOpen(partOf(fleet, name), timeOf(part));
  };
  return html`<div class="fleet-line">
    <ul class="lane-names" aria-hidden="true">${rows.map(name => html`<li key=${name} title=${name}>${name}</li>`)}</ul>
    <div><div class="fleet-ends"><span>${clock(from_ns)}</span>${hover !== null && html`<output>${clock(timeOf(hover))}</output>`}<span>${clock(to_ns)}</span></div>
    <svg role="img" aria-label="When each partition ran, and how late its links were" viewBox=${`0 0 ${WIDE} ${height}`} height=${height}
        preserveAspectRatio="none" onClick=${click} onPointerMove=${(/** @type {PointerEvent} */ event) => setHover(place(event).part)} onPointerLeave=${() => setHover(null)}>
      ${parts.map(({part, runs}, row) => runs.map(({id, from_ns: begin, to_ns: end, state}) => begin !== null && end !== null && html`<rect key=${id}
        data-run=${id} data-of=${part} class=${state === "running" || state === "ended" ? "ran" : "ran cut"} x=${x(begin)} y=${row * ROW + 3} width=${Math.max(2, x(end) - x(begin))} height=${ROW - 6} />`))}
      ${links.map((link, number) => html`<${Late} key=${number} link=${link} top=${(parts.length + number) * ROW} x=${x} />`)}
      <path class="at" d=${`M${x(at)} 0V${height}`} />
    </svg></div>
  </div>`;
}

/** @param {{link: Link, top: number, x: (ns: number) => number}} props */
function Late({link, top, x}) {
  const {delays_ms, gaps} = link;
  const most = Math.log1p(Math.max(...delays_ms.map(ms => ms ?? 0), 1));
  const wide = WIDE / delays_ms.length;
  const bars = delays_ms.map((ms, number) => {
    const high = ms === null ? 0 : Math.max(2, (ROW - 4) * Math.log1p(Math.max(ms, 0)) / most);
    return ms === null ? "" : `M${number * wide} ${top + ROW - 2}v${-high}h${wide}v${high}z`;
  }).join("");
  return html`<g><path class="late" d=${bars} />${gaps.map(({at_ns}) => html`<path key=${at_ns} class="gap" d=${`M${x(at_ns)} ${top}v${ROW - 1}`} />`)}</g>`;
}
