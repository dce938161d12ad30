// The top of the page: how it is in one sentence, and what to do if it is not well. Never by colour alone: each tone
// has its mark and its word.

import { byId, element, keep, setAttribute, setText, show } from "./dom.js";
import { ZONE, duration, iso, local, utc } from "./words.js";

const MARKS = {
  good: "M12 2a10 10 0 1 0 0 20a10 10 0 0 0 0-20zM10.6 16.6l-4.3-4.3 1.5-1.5 2.8 2.8 5.7-5.7 1.5 1.5z",
  busy: "M12 2a10 10 0 1 0 0 20a10 10 0 0 0 0-20zM7.5 13.4a1.4 1.4 0 1 1 0-2.8a1.4 1.4 0 0 1 0 2.8zM12 13.4a1.4 1.4 0 1 1 0-2.8a1.4 1.4 0 0 1 0 2.8zM16.5 13.4a1.4 1.4 0 1 1 0-2.8a1.4 1.4 0 0 1 0 2.8z",
  warn: "M12 2a10 10 0 1 0 0 20a10 10 0 0 0 0-20zM13 12.6l3.3 3.3-1.4 1.4-3.9-3.9V6.5h2z",
  bad: "M12 2.2l11 19.3H1zM11 9v6h2V9zM11 16.8v2.2h2v-2.2z",
  still: "M12 2a10 10 0 1 0 0 20a10 10 0 0 0 0-20zM8.5 8.5h7v7h-7z",
};

const STATES = {
  starting: ["busy", "Starting"],
  requesting: ["busy", "Connecting"],
  streaming: ["good", "Reading"],
  waiting: ["warn", "Waiting"],
  paused: ["warn", "Paused"],
  draining: ["busy", "Stopping"],
  refused: ["bad", "Refused"],
  stopped: ["still", "Stopped"],
};

// As in the sentence: so long without a hit is quiet, so far behind is worth a word, for so long a gap is spoken of.
const QUIET_US = 60e6;
const BEHIND_S = 300;
const RECENT_US = 24 * 3600e6;
const LONG = 90; // Characters: a sentence beyond it is set smaller.
const AT_EASE = new Set(["starting", "draining", "stopped", "refused"]); // Not ready by their nature.
const AFTER_A_RESTART = new Set(["", "drained", "unknown_end"]); // Codes of waits that are nothing to look at.

let announced = "";

const gapsLikely = (timeline, nowUs) =>
  timeline.some((at) => at.suspected === "likely" && (at.ended_us || nowUs) >= nowUs - RECENT_US);

function toneAndWord({ at_us: nowUs, lag_s: lagS, ready, connection, journal, timeline }) {
  const [tone, word] = STATES[connection.state];
  if (!ready && !AT_EASE.has(connection.state)) return ["bad", `${word}, needs attention`];
  if (connection.state === "waiting" && !journal.full && AFTER_A_RESTART.has(connection.code)) return ["busy", word];
  const quiet = nowUs - Math.max(connection.last_hit_us, connection.since_us) >= QUIET_US;
  if (connection.state !== "streaming") return [tone, word];
  if (gapsLikely(timeline, nowUs)) return ["warn", "Reading, after a gap"];
  if (lagS >= BEHIND_S) return ["warn", "Reading, behind"];
  return quiet ? ["busy", "Quiet"] : [tone, word];
}

function mark(tone, word) {
  document.body.dataset.tone = tone;
  setAttribute(byId("mark").firstElementChild, "d", MARKS[tone]);
  setText(byId("state"), word);
}

function headline(sentence) {
  const node = byId("sentence");
  setText(node, sentence);
  node.classList.toggle("long", sentence.length > LONG);
}

function asOf(us, words) {
  setAttribute(byId("as-of"), "datetime", iso(us));
  setText(byId("as-of"), words);
}

/** A screen reader is told when the state changes, not when the numbers in the sentence do. */
function announce(about, words) {
  if (announced === about) return;
  announced = about;
  setText(byId("announcement"), words);
}

function bothTimes(us, options) {
  const here = local(us, options);
  return here ? `${utc(us, options)}, ${here} (${ZONE})` : utc(us, options);
}

/** The first sentence and the others; a full stop within quotes, of what the service said, ends none. */
export function firstAndRest(text) {
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === '"') quoted = !quoted;
    if (!quoted && text[at] === "." && text[at + 1] === " ") return [text.slice(0, at + 1), text.slice(at + 2)];
  }
  return [text, ""];
}

function showRemedy(paragraphs) {
  keep(byId("remedy-words"), paragraphs.filter(Boolean).map((words, index) => ({ words, index })), {
    key: ({ index }) => index,
    make: () => element("p"),
    update: (node, { words }) => setText(node, words),
  });
  show(byId("remedy"), paragraphs.some(Boolean));
}

export function showHeadline(status) {
  const { connection } = status;
  const [tone, word] = toneAndWord(status);
  const [first, rest] = firstAndRest(status.sentence);
  mark(tone, word);
  headline(first);
  asOf(status.at_us, `As of ${bothTimes(status.at_us, { seconds: true })}`);
  setText(byId("where"), status.stream);
  document.title = `${word} · ${status.stream}`;
  const due = connection.next_attempt_us;
  showRemedy([
    rest,
    due && `The next request is sent at ${bothTimes(due, { seconds: true })}, by itself.`,
    rest && connection.code && `More about it: livestream-collector explain ${connection.code}`,
  ]);
  announce([word, connection.code, status.reasons.length].join(), `${word}. ${status.sentence}`);
}

/** Nothing is heard. `last` is what was heard last, or null: this page was loaded, and then nothing. */
export function showSilence(last) {
  const calm = last !== null && ["draining", "stopped"].includes(last.connection.state);
  const word = calm ? "Stopped" : "No answer";
  mark(calm ? "still" : "bad", word);
  const since = last === null ? "" : ` since ${utc(last.at_us)}`;
  const sentence = calm ? `The collector was told to stop and has not answered${since}.` : `The collector has not answered${since}.`;
  headline(sentence);
  if (last !== null) {
    const agoS = (Date.now() * 1000 - last.at_us) / 1e6;
    asOf(last.at_us, `Last heard ${bothTimes(last.at_us, { seconds: true })}, ${duration(agoS)} ago`);
  }
  showRemedy([
    calm
      ? "It is not running, and collects nothing, until it is started again."
      : "It has ended, is being restarted, or this browser does not reach its host any more. While it does not run nothing is collected.",
    "What it had taken is safe: the next start goes on with what is in the journal.",
    `See on its host: livestream-collector status${last === null ? "" : ` --output ${last.output} --stream ${last.stream}`}`,
    "This page asks again every few seconds, and needs no reload.",
  ]);
  document.title = `${word} · ${last === null ? "livestream-collector" : last.stream}`;
  announce(word, sentence);
}
