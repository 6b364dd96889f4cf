// The strip at the top.

import { $ } from "./dom.js";

const MINUTE = 60; // looks, one a second
const seen = [];

export function showMeters({ minted, refused, live, cancelled, cancels_failed: failed, median_ms: median }) {
  const codes = Object.entries(refused);
  set("minted", minted);
  set("refused", codes.reduce((sum, [, count]) => sum + count, 0), codes.map(([code, count]) => `${code}: ${count}`).join("\n"));
  set("live", live);
  set("cancelled", cancelled, failed ? `${failed} tries failed and were, or will be, repeated` : "");
  set("median", median === null ? "–" : `${median < 10 ? median.toFixed(1) : median.toFixed(0)} ms`, "Of mints since the start");
  seen.push(minted);
  if (seen.length > MINUTE + 1) seen.shift();
  draw();
}

function set(name, value, title = "") {
  const place = $(`meter-${name}`);
  place.textContent = value;
  place.title = title;
}

function draw() {
  const rates = seen.slice(1).map((count, index) => Math.max(0, count - seen[index]));
  const most = Math.max(1, ...rates);
  const begin = MINUTE - rates.length;
  const points = rates.map((rate, index) => `${(2 * (begin + index)).toFixed(1)},${(26 - (24 * rate) / most).toFixed(1)}`);
  $("spark").firstElementChild.setAttribute("points", points.join(" "));
}
