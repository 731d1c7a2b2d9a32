// @ts-check
// The run and the moment in the page's address: a reload, the back button and a link lead to what was shown.

/** run: an id, null for the live run, or the newest where none is; cycle: null for now, or for the end of a recorded run.
 * @typedef {{run: string | null, cycle: number | null}} Place */

const EVERY_MS = 500;  // while somebody drags: browsers refuse what comes faster than some three times a second

/** What the page's address leads to. @returns {Place} */
export function placeAsked() {
  const query = new URLSearchParams(location.search), cycle = query.get("cycle") ?? "";
  return {run: query.get("run"), cycle: /^\d+$/.test(cycle) ? Number(cycle) : null};
}

/** The page's address where it leads to a place. @param {Place} place */
function addressOf(place) {
  const found = new URL(location.href);
  for (const [name, value] of Object.entries(place)) {
    if (value === null) found.searchParams.delete(name); else found.searchParams.set(name, String(value));
  }
  return found.href;
}

/** Have the page opened at a place, as if it had not been there before. @param {Place} place */
export function reopen(place) {
  const address = addressOf(place);
  if (address === location.href) location.reload();  // going to where one is does nothing below a fragment
  else location.assign(address);
}

/** Have the address follow what is shown. Another run is a step that the back button undoes, and so is looking back in a
 * live one; another moment is none.
 * @param {() => Place} shown the live run has an id only where somebody looks back in it
 * @param {(place: Place) => Promise<void>} go where the back button leads
 * @returns {() => void} to be called when something else may be shown */
export function keepAddress(shown, go) {
  let timer = 0;
  let going = 0;
  const rewrite = () => {
    timer = 0;
    if (!going) history.replaceState(null, "", addressOf(shown()));
  };
  const note = () => {
    if (going) return;
    const now = shown(), {run, cycle} = placeAsked();
    if (now.run !== run) {
      clearTimeout(timer);
      timer = 0;
      history.pushState(null, "", addressOf(now));
    } else if (now.cycle !== cycle) {
      timer ||= setTimeout(rewrite, EVERY_MS);
    }
  };
  addEventListener("popstate", () => {
    going += 1;
    go(placeAsked()).finally(() => { going -= 1; note(); });
  });
  rewrite();
  return note;
}
