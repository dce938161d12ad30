// Listens to the collector and shows each status as it comes. When the collector is gone it says so, keeps what was
// last known, and asks again until it is back.

import { byId, setText, show } from "./dom.js";
import { loadAdvice, showHeadline, showSilence } from "./headline.js";
import { showFigures } from "./figures.js";
import { utc } from "./words.js";

const SILENT_MS = 12_000; // A collector that is well says something every second or two.
const AGAIN_MS = 3_000;
const LOOK_MS = 1_000;

let source = null;
let last = null; // The last status that came.
let heardMs = 0; // When that was.
let askedMs = 0;
let silent = false;
let again = null;

function listen() {
  again = null;
  askedMs = Date.now();
  source?.close();
  source = new EventSource("events");
  source.addEventListener("message", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("error", lost);
}

function heard(status) {
  if (last !== null && last.version !== status.version) {
    location.reload(); // Another collector has another page.
    return;
  }
  last = status;
  heardMs = Date.now();
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
  silent = true;
  sayNothingIsHeard();
}

function sayNothingIsHeard() {
  showSilence(last, (Date.now() - heardMs) / 1000);
  if (last === null) return;
  setText(byId("stale"), `As of ${utc(last.at_us, { seconds: true })}, the last that was heard:`);
  show(byId("stale"), true);
}

/** A connection can be dead without an error: a laptop that slept, a tunnel that hangs. */
function look() {
  if (again === null && Date.now() - Math.max(heardMs, askedMs) > SILENT_MS) lost();
  else if (silent) sayNothingIsHeard();
}

await loadAdvice();
listen();
setInterval(look, LOOK_MS);
