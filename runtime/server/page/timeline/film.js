// @ts-check
// The recorded pictures of a camera: any of them, exactly, decoded here from the packets of the log.
import {Decoding} from "../decoding.js";
import {Group} from "./group.js";
import {kept} from "./kept.js";

/** @typedef {import("../decoding.js").Picture} Picture */
/** What the picture of a cycle needs: the packets from cycle `key` on, of which `number` gives it.
 * @typedef {{cycle: number, key: number, number: number}} Wanted */
/** @typedef {import("./group.js").Message} Message */
/** @typedef {(picture: Picture, key: number) => void} Near key: the key frame that the picture needs */

const AHEAD = 30;               // pictures whose packets are loaded with those of one that follows others
const MOST_QUEUED = 8;          // packets in the decoder: all that is done in vain when another picture is wanted
const SETTLE_MS = 40;           // after this long without a picture, a decoder seems to hold it back for its order
const SOON_MS = 80;             // between pictures that are shown on the way to the one that is wanted
const DRAWING = 1 / 5;          // of the time at most goes into drawing them: a busy machine would do little else
const PASSING_MS = 300;         // after this long without a packet, the key frame of a group that is passed is given up
const DECODING_MS = 1000;       // the same where the decoder has all that it should need: a busy machine is slow
const GROUP_BYTES = 64 << 20;   // of packets that one camera keeps

let films = 0;

/** One camera of a run. */
export class Film {
  /** @param {string} url of its packets in the API */
  constructor(url) {
    this.url = url;
    this.name = `${films += 1} `;
    /** Why no picture can be decoded here, "" if they can. */ this.why = "";
    this.decoding = new Decoding({picture: picture => this.take(picture), taken: () => this.wake(), gap: why => this.leave(why)}, false);
    this.decoding.fail = why => { this.why = why; this.give(null, new Error(why)); };
    /** Those used last the last. @type {Map<number, Group>} */ this.groups = new Map();
    /** Whose packets the decoder has. @type {Group | null} */ this.group = null;
    /** How many of its messages the decoder has, since when, and what has come of them. */ this.fed = 0;
    this.fedAt = 0;
    /** @type {Set<number>} */ this.given = new Set();
    /** How many pictures the decoder holds back, for its order or its threads, as far as that was seen. */ this.held = Infinity;
    /** Whether it gives all of them. */ this.flushes = false;
    this.configured = "";
    /** The cycle of what somebody sees, and since when. @type {{cycle: number | null, at: number}} */
    this.seen = {cycle: null, at: 0};
    /** How long it took to draw the last picture on the way. */ this.drawing_ms = 0;
    /** Whether somebody has gone on before there was a picture of where they were. */ this.hurries = false;
    /** What is shown soon, on the way. @type {{picture: Picture, timer: number} | null} */ this.next = null;
    /** What is waited for; quiet: nobody does yet.
     * @type {(Wanted & {quiet: boolean, near: Near, done: (found: Picture | null, error?: Error) => void}) | null} */
    this.want = null;
    /** The key of the group in which somebody looks about. @type {number | null} */ this.before = null;
    this.keeps = false;
    this.runs = false;
    this.wake = () => {};
  }

  /** The picture, which the caller closes; null if another one is asked for meanwhile.
   * @param {Wanted} wanted @param {Near} near takes, and closes, pictures that are there sooner and are nearer to it than
   *   what is seen: the latest that is decoded, which may be the key frame of a group that a fast hand passes
   * @returns {Promise<Picture | null>} */
  picture(wanted, near) {
    this.hurries = this.want?.quiet === false && this.want.key !== wanted.key;
    this.give(null);
    this.keeps = this.before === wanted.key;
    this.before = wanted.key;
    const known = kept.get(this.keyOf(wanted.key, wanted.number));
    if (known) {
      this.note(wanted.cycle);
      return Promise.resolve(known);
    }
    const why = this.why || this.groups.get(wanted.key)?.broken;
    if (why) return Promise.reject(new Error(why));
    return new Promise((resolve, reject) => {
      this.want = {...wanted, quiet: false, near, done: (found, error) => error ? reject(error) : resolve(found)};
      this.wake();
      this.run();
    });
  }

  /** Have a picture decoded, and its key frame, for somebody who may want them soon. What is waited for goes first.
   * @param {Wanted} wanted @returns {Promise<boolean>} whether it is there */
  foresee(wanted) {
    if (kept.frames.has(this.keyOf(wanted.key, wanted.number))) return Promise.resolve(true);
    if (this.why || this.groups.get(wanted.key)?.broken || this.want?.quiet === false) return Promise.resolve(false);
    this.give(null);
    return new Promise(resolve => {
      this.want = {...wanted, quiet: true, near: () => {}, done: found => { found?.image.close?.(); resolve(!!found); }};
      this.wake();
      this.run();
    });
  }

  /** Nobody waits for a picture any more. */
  stop() {
    this.give(null);
    this.forget();
    this.seen.cycle = null;
    for (const group of this.groups.values()) group.stop();
  }

  close() {
    this.stop();
    this.decoding.close();
    kept.drop(this.name);
  }

  /** @param {number} key @param {number} number */
  keyOf(key, number) { return `${this.name}${key} ${number}`; }

  /** Something has been decoded. @param {Picture} picture */
  take(picture) {
    const {number = -1, image} = picture;
    this.given.add(number);
    if (!this.flushes) this.held = Math.min(this.held, Math.max(0, this.fed - 1 - this.given.size));
    const {want} = this;
    const isOfWant = want !== null && this.group?.key === want.key;
    const isForeseen = isOfWant && want.quiet && (want.number === number || this.given.size === 1);
    if ((this.keeps || isForeseen) && this.group) kept.add(this.keyOf(this.group.key, number), picture);
    if (isOfWant && want.number === number) {
      if (!want.quiet) this.note(want.cycle);
      this.give(picture);
    } else if (this.group && this.isNearer(picture.cycle)) {
      this.showSoon(picture, this.group.key);
    } else {
      image.close?.();
    }
    this.wake();
  }

  /** Whether the picture of a cycle is nearer to the one that somebody waits for than what is seen. @param {number | null} cycle */
  isNearer(cycle) {
    const {want, seen} = this;
    if (!want || want.quiet || cycle === null) return false;
    return seen.cycle === null || Math.abs(want.cycle - cycle) < Math.abs(want.cycle - seen.cycle);
  }

  /** Show a picture on the way, or the latest one soon: drawing each would take longer than decoding it.
   * @param {Picture} picture @param {number} key */
  showSoon(picture, key) {
    this.forget();
    const due = this.seen.at + Math.max(SOON_MS, this.drawing_ms / DRAWING) - performance.now();
    if (due <= 0) this.show(picture, key);
    else this.next = {picture, timer: setTimeout(() => { this.next = null; this.show(picture, key); }, due)};
  }

  /** @param {Picture} picture @param {number} key */
  show(picture, key) {
    const {want} = this, {cycle, image} = picture;
    if (!want || cycle === null || !this.isNearer(cycle)) { image.close?.(); return; }
    this.note(cycle);
    want.near(picture, key);
    this.drawing_ms = performance.now() - this.seen.at;
  }

  /** Show nothing more on the way. */
  forget() {
    clearTimeout(this.next?.timer);
    this.next?.picture.image.close?.();
    this.next = null;
  }

  /** @param {number} cycle of what somebody sees from now on */
  note(cycle) {
    this.forget();
    this.seen = {cycle, at: performance.now()};
  }

  /** @param {Picture | null} picture @param {Error} [error] */
  give(picture, error) {
    const {want} = this;
    this.want = null;
    if (want) want.done(picture, error); else picture?.image.close?.();
  }

  /** Do without the pictures of a group that the decoder has failed at, as it may where packets are damaged. @param {string} why */
  leave(why) {
    const {group, want} = this;
    this.group = null;
    if (group) group.broken = why;
    if (want && want.key === group?.key) this.give(null, new Error(why));
    this.wake();
  }

  /** Feed the decoder until the picture comes that is wanted. */
  async run() {
    if (this.runs) return;
    this.runs = true;
    while (this.want) {
      try { await this.step(this.want); } catch (error) { this.group = null; this.give(null, error instanceof Error ? error : new Error(String(error))); }
    }
    this.runs = false;
  }

  /** The group whose key frame the decoder is about to give, if it is another than that of the wanted picture: a hand
   * that drags fast passes groups sooner than a picture of any comes, and would see nothing. @param {number} key of the
   * wanted one @returns {Group | null} */
  passed(key) {
    const {group} = this;
    if (!group || group.key === key || group.error || this.given.size || !this.isNearer(group.key)) return null;
    const comes = group.messages.length > 0 || (group.loading !== null && !this.groups.get(key)?.messages.length);
    const most_ms = group.between(group.key, this.fed) > this.needed ? DECODING_MS : PASSING_MS;
    return comes && performance.now() - this.fedAt < most_ms ? group : null;
  }

  /** How many pictures after a key frame the decoder needs to give it, as far as that is known. */
  get needed() { return Number.isFinite(this.held) ? this.held : MOST_QUEUED; }

  /** Feed the decoder what the key frame of a group still needs, and have that of the wanted one come meanwhile.
   * @param {Group} group @param {number} key of the wanted one */
  async pass(group, key) {
    const next = this.groupOf(key, group);
    if (!next.messages.length && !next.loading && !next.error) next.load(key, this.needed);
    const message = group.messages[this.fed];
    const isNeeded = group.between(group.key, this.fed) <= this.needed;
    if (!isNeeded) group.stop();
    else if (!message && !group.loading && !group.over) group.load(group.end, AHEAD);
    if (message && isNeeded && this.decoding.queued < MOST_QUEUED) this.feed(message);
    else await this.news(PASSING_MS);
  }

  /** @param {NonNullable<Film["want"]>} want */
  async step(want) {
    const passed = this.passed(want.key);
    if (passed) { await this.pass(passed, want.key); return; }
    const group = this.groupOf(want.key);
    if (this.group !== group || this.given.has(want.number)) this.begin(group);
    if (group.error) { const {error} = group; group.error = ""; throw new Error(error); }
    const held = Number.isFinite(this.held) ? this.held : 0;
    if (group.end < want.cycle) group.load(want.cycle, group.messages.length ? AHEAD : held);
    const next = group.messages[this.fed];
    if (next && (next.cycle <= want.cycle || group.between(want.cycle, this.fed) < held)) {
      if (this.decoding.queued < this.most) this.feed(next); else await this.news();
      return;
    }
    if (this.decoding.queued || (!next && group.loading)) { await this.news(); return; }
    const until = performance.now() + (held && !next && group.over ? 0 : SETTLE_MS);
    while (this.want === want && performance.now() < until) await this.news(until - performance.now());
    if (this.want !== want) return;
    if (next) { this.feed(next); return; }
    if (!group.over && !group.loading) { group.load(group.end, AHEAD); return; }
    this.flushes = true;
    await this.decoding.flush().finally(() => { this.flushes = false; });
    this.group = null;  // a key frame must come next
    if (this.want === want) throw new Error("its packets do not give it");
  }

  /** How many packets may wait in the decoder: of a group that may be passed, too, what its key frame needs. */
  get most() { return this.hurries && !this.given.size ? Math.min(this.held + 1, MOST_QUEUED) : MOST_QUEUED; }

  /** The group of a key frame, now the one used last. No other's packets come any more but those of `passed`.
   * @param {number} key @param {Group | null} [passed] */
  groupOf(key, passed = null) {
    const found = this.groups.get(key) ?? new Group(this.url, key, () => this.wake());
    this.groups.delete(key);
    this.groups.set(key, found);
    let size = 0;
    for (const group of [...this.groups.values()].reverse()) {
      size += group.size;
      if (group !== found && group !== passed) group.stop();
      if (group !== found && size > GROUP_BYTES) this.groups.delete(group.key);
    }
    return found;
  }

  /** @param {Group} group */
  begin(group) {
    this.group = group;
    this.fed = 0;
    this.fedAt = performance.now();
    this.given.clear();
    this.decoding.restart();
  }

  /** @param {Message} message */
  feed({data}) {
    this.fed += 1;
    this.fedAt = performance.now();
    if (typeof data === "string") {
      if (data === this.configured) return;
      this.configured = data;
    }
    this.decoding.message(data);
  }

  /** Until something happens. @param {number} [most_ms] */
  news(most_ms) {
    return new Promise(done => {
      const timer = most_ms === undefined ? 0 : setTimeout(() => done(null), most_ms);
      this.wake = () => { clearTimeout(timer); done(null); };
    });
  }
}
