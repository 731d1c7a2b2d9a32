// @ts-check
// Packets of the log: those of the pictures that need one key frame.
import {address, refusal} from "../api.js";

/** @typedef {{cycle: number, data: string | ArrayBuffer}} Message */

/** The packets of the pictures that need one key frame, as far as they have come. */
export class Group {
  /** @param {string} url @param {number} key @param {() => void} changed */
  constructor(url, key, changed) {
    this.url = url;
    this.key = key;
    this.changed = changed;
    /** @type {Message[]} */ this.messages = [];
    this.size = 0;
    /** @type {AbortController | null} */ this.loading = null;
    /** Whether there are no more. */ this.over = false;
    /** Why no more come. */ this.error = "";
    /** Why the decoder has given up on them, "" if it has not. */ this.broken = "";
  }

  get end() { return this.messages.at(-1)?.cycle ?? -1; }

  /** The number of messages after a cycle, of the first ones. @param {number} cycle @param {number} first */
  between(cycle, first) {
    let at = first;
    while (at > 0 && this.messages[at - 1].cycle > cycle) at -= 1;
    return first - at;
  }

  /** Have the packets up to a cycle come, and those of some pictures after it. @param {number} cycle @param {number} ahead */
  async load(cycle, ahead) {
    if (this.loading) return;
    const loading = this.loading = new AbortController();
    const before = this.end;
    let more = 0;
    try {
      const reply = await fetch(address(this.url, {cycle, ahead, from: before < 0 ? this.key : before + 1}), {signal: loading.signal});
      if (!reply.ok || !reply.body) throw await refusal(reply);
      for await (const message of inSequence(reply.body.getReader())) {
        if (loading.signal.aborted) return;  // the rest of a part of the reply is there all the same
        const isText = typeof message === "string";
        const its = isText ? before : Number(new DataView(message).getBigUint64(8, true));
        this.size += isText ? message.length : message.byteLength;
        this.messages.push({data: message, cycle: its});
        more += Number(its > cycle);
        this.changed();
      }
      this.over = more < ahead;
      if (this.end < cycle) this.error = "the log does not hold its packets";
    } catch (failure) {
      if (!loading.signal.aborted) this.error = failure instanceof Error ? failure.message : String(failure);
    }
    if (this.loading === loading) this.loading = null;
    this.changed();
  }

  stop() { this.loading?.abort(); this.loading = null; }
}

/** The messages in a reply, each after its size. @param {ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>} reader
 * @returns {AsyncGenerator<string | ArrayBuffer>} */
async function* inSequence(reader) {
  /** @type {Uint8Array<ArrayBuffer>} */ let rest = new Uint8Array(0);
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const data = new Uint8Array(rest.length + value.length);
    data.set(rest);
    data.set(value, rest.length);
    let at = 0;
    while (at + 4 <= data.length) {
      const word = new DataView(data.buffer, at).getUint32(0, true), size = word & 0x7fffffff;
      if (at + 4 + size > data.length) break;
      const message = data.slice(at + 4, at + 4 + size);
      at += 4 + size;
      yield word >>> 31 ? new TextDecoder().decode(message) : message.buffer;
    }
    rest = data.slice(at);
  }
}
