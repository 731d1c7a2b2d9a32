// @ts-check
// What the page says for some seconds, at its foot.
import {html, useRef, useState} from "./html.js";

const SAID_MS = 6000;

/** Say a text, such as why something failed. @typedef {(text: string, bad?: boolean) => void} Say */

/** What says a text, and the element in which it is said. @returns {[Say, any]} */
export function useSaid() {
  const [said, setSaid] = useState({text: "", bad: false});
  const timer = useRef(0);
  const say = (/** @type {string} */ text, bad = false) => {
    clearTimeout(timer.current);
    setSaid({text, bad});
    timer.current = setTimeout(() => setSaid({text: "", bad: false}), bad ? 3 * SAID_MS : SAID_MS);
  };
  return [say, html`<div id="said" role="status" class=${said.bad ? "bad" : ""}>${said.text}</div>`];
}
