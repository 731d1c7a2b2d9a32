// @ts-check
// The server: its addresses, requests to it, and its one stream of events.

const token = new URLSearchParams(location.search).get("token");

/** An address of the server below that of the page, with the token if there is one.
 * @param {string} path relative, such as "api/v0/report"
 * @param {Record<string, string | number>} [query]
 */
export function address(path, query = {}) {
  const found = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) found.searchParams.set(name, String(value));
  if (token) found.searchParams.set("token", token);
  return found.href;
}
/** The same for a WebSocket. @param {string} path @param {Record<string, string | number>} [query] */
export const socketAddress = (path, query) => address(path, query).replace(/^http/, "ws");

/** The server refused a request; `message` is its text. */
export class Refused extends Error {
  /** @param {number} status @param {string} text */
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Where the server's clock is ahead of the browser's, in milliseconds; known to about a second. */
export let aheadMs = 0;

/** @param {Response} reply */
async function content(reply) {
  const date = Date.parse(reply.headers.get("date") ?? "");
  if (date) aheadMs = Math.abs(date - Date.now()) < 2000 ? 0 : date - Date.now();
  if (!reply.ok) throw await refusal(reply);
  return reply.json().catch(() => null);
}
/** Why the server has refused a request. @param {Response} reply */
export async function refusal(reply) {
  const body = await reply.json().catch(() => null);
  const text = body?.error ?? body?.Error?.error ?? body?.detail;
  return new Refused(reply.status, typeof text === "string" ? text : `HTTP ${reply.status}`);
}
/** @param {string} path @param {Record<string, string | number>} [query] @param {AbortSignal} [signal] */
export const get = async (path, query, signal) => content(await fetch(address(path, query), {signal}));
/** @param {string} path @param {object} body */
export const post = async (path, body) => content(await fetch(address(path), {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
}));
/** Why a request failed, for people. @param {unknown} error */
export const why = error => error instanceof Refused ? error.message
  : `The server cannot be reached (${error instanceof Error ? error.message : error}).`;

/** Replies may come in another order than they were asked for: for requests of one thing, what takes each reply but
 * those that are older than one that has come. */
export function inOrder() {
  let asked = 0;
  let came = 0;
  /** @template T @param {Promise<T>} request @param {(found: T) => void} take @param {(error: unknown) => void} fail */
  return async (request, take, fail) => {
    const number = ++asked;
    const isNew = () => { const is = number > came; if (is) came = number; return is; };
    await request.then(found => { if (isNew()) take(found); }, error => { if (isNew()) fail(error); });
  };
}

const RETRY_MS = 2000;

/** Listen to the events of the run, again and again, until `ended` comes. A page that nobody sees
 * holds no stream.
 * @param {string[]} names of the events
 * @param {{event: (name: string, data: any) => void, opened: () => void, lost: () => void, left: () => void}} on
 *   lost: the server cannot be reached; left: nobody looks.
 */
export function listen(names, on) {
  /** @type {EventSource | null} */
  let source = null;
  let over = false;
  const close = () => { source?.close(); source = null; };
  function open() {
    if (source || over || document.hidden) return;
    const opened = new EventSource(address("api/v0/events"));
    source = opened;
    opened.addEventListener("open", on.opened);
    for (const name of names) {
      opened.addEventListener(name, event => {
        if (!(event instanceof MessageEvent)) return;
        if (name === "ended") { over = true; close(); }
        on.event(name, JSON.parse(event.data));
      });
    }
    // The run has events of this name, too, as messages.
    opened.addEventListener("error", event => {
      if (event instanceof MessageEvent || over || source !== opened) return;
      close();
      on.lost();
      setTimeout(open, RETRY_MS);
    });
  }
  document.addEventListener("visibilitychange", () => {
    if (over) return;
    if (document.hidden) { close(); on.left(); } else open();
  });
  open();
}
