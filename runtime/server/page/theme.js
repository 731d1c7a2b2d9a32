"use strict";
// Before anything is painted, so that a dark page does not begin as a light one.
{
  const chosen = localStorage.getItem("flowrun-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}
