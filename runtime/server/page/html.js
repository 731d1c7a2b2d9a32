// @ts-check
// Preact with templates instead of JSX: what a component of this page imports.
import {Fragment, h, render} from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export {useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState} from "./vendor/hooks.js";
export {Fragment, render};
/** Elements from a template. What is filled in becomes text or attributes, never markup. */
export const html = htm.bind(h);
