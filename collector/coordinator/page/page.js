// Listens to the collector and shows each status as it comes. When the collector is gone it says so, keeps what was
// last known, and asks again until it is back.

import { byId, show } from "./dom.js";
import { showHeadline, showSilence } from "./headline.js";
import { showFigures } from "./figures.js";
import { utc } from "./words.js";

const SILENT_MS = 12_000; // A collector that is well says something every second or two.
const AGAIN_MS = 3_000;
const LOOK_MS = 1_000;

let source = null;
let last = null; // The last status that came.
let heardMs = performance.now();
let silent = false;
let again = null;

function listen() {
  again = null;
  source?.close();
  source = new EventSource("events");
  source.addEventListener("message", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("error", lost);
}

function heard(status) {
  heardMs = performance.now();
  if (last !== null && last.version !== status.version) {
    location.reload(); // Another collector has another page.
    return;
  }
  last = status;
  silent = false;
  showHeadline(status);
  showFigures(status);
  show(byId("figures"), true);
  show(byId("stale"), false);
}

/** The browser would ask again by itself after most errors, but not after all. */
function lost() {
  source.close();
  again ??= setTimeout(listen, AGAIN_MS);
  fallSilent();
}

function fallSilent() {
  if (!silent) heardMs = Math.min(heardMs, performance.now());
  silent = true;
  showSilence(last);
  if (last === null) return;
  byId("stale").textContent = `As of ${utc(last.at_us, { seconds: true })}, the last that was heard:`;
  show(byId("stale"), true);
}

/** A connection can be dead without an error: a laptop that slept, a tunnel that hangs. */
function look() {
  if (silent) showSilence(last);
  else if (performance.now() - heardMs > SILENT_MS) lost();
}

listen();
setInterval(look, LOOK_MS);
