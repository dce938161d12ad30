// The top of the page: how it is in one sentence, and what to do if it is not well. Never by colour alone: each tone
// has its mark and its word.

import { byId, element, keep, setAttribute, setText, setWords, show } from "./dom.js";
import { ZONE, duration, iso, local, utc } from "./words.js";

const DISC = "M12 2a10 10 0 1 0 0 20a10 10 0 0 0 0-20z";
const MARKS = {
  tick: `${DISC}M10.6 16.6l-4.3-4.3 1.5-1.5 2.8 2.8 5.7-5.7 1.5 1.5z`,
  dots: `${DISC}M7.5 13.4a1.4 1.4 0 1 1 0-2.8a1.4 1.4 0 0 1 0 2.8zM12 13.4a1.4 1.4 0 1 1 0-2.8a1.4 1.4 0 0 1 0 2.8zM16.5 13.4a1.4 1.4 0 1 1 0-2.8a1.4 1.4 0 0 1 0 2.8z`,
  clock: `${DISC}M13 12.6l3.3 3.3-1.4 1.4-3.9-3.9V6.5h2z`,
  bars: `${DISC}M8 8h2.6v8H8zM13.4 8H16v8h-2.6z`,
  note: `${DISC}M11 6.5h2v7h-2zM11 15.5h2v2h-2z`,
  alarm: "M12 2.2l11 19.3H1zM11 9v6h2V9zM11 16.8v2.2h2v-2.2z",
  square: `${DISC}M8.5 8.5h7v7h-7z`,
};

const STATES = {
  starting: ["busy", "dots", "Starting"],
  requesting: ["busy", "dots", "Connecting"],
  streaming: ["good", "tick", "Reading"],
  waiting: ["warn", "clock", "Waiting"],
  paused: ["warn", "bars", "Paused"],
  draining: ["busy", "dots", "Stopping"],
  refused: ["bad", "alarm", "Refused"],
  stopped: ["still", "square", "Stopped"],
};

// As in the sentence: so long without a hit is quiet, so far behind is worth a word, for so long a gap is spoken of.
const QUIET_US = 60e6;
const BEHIND_S = 300;
const RECENT_US = 24 * 3600e6;
const LONG = 90; // Characters: a sentence beyond it is set smaller.
const AT_EASE = new Set(["starting", "draining", "stopped", "refused"]); // Not ready by their nature.
const AFTER_A_RESTART = new Set(["", "drained"]); // Codes of waits that are nothing to look at.

let announced = "";
let advice = {}; // By code: likely causes and what to do, as `explain` says them.

export async function loadAdvice() {
  try {
    advice = await (await fetch("advice.json")).json();
  } catch {
    // The collector has just gone: its sentence is still to come, and says the most important.
  }
}

/** Whether hits are likely lost, of late. */
const gapsLikely = (timeline, nowUs) =>
  timeline.some((at) => at.suspected === "likely" && (at.ended_us || nowUs) >= nowUs - RECENT_US);

/** `[tone, mark, word]` */
function look(status) {
  const { at_us: nowUs, connection } = status;
  const [tone, mark, word] = STATES[connection.state];
  if (!status.ready && !AT_EASE.has(connection.state)) return ["bad", "alarm", `${word}, needs attention`];
  if (connection.state === "waiting" && !status.journal.full && AFTER_A_RESTART.has(connection.code)) {
    return ["busy", mark, word];
  }
  if (connection.state !== "streaming") return [tone, mark, word];
  if (gapsLikely(status.timeline, nowUs)) return ["warn", "note", "Reading, after a gap"];
  if (status.lag_s >= BEHIND_S) return ["warn", "note", "Reading, behind"];
  const quiet = nowUs - Math.max(connection.last_hit_us, connection.since_us) >= QUIET_US;
  return quiet ? ["busy", "dots", "Quiet"] : [tone, mark, word];
}

function showLook(tone, mark, word) {
  document.body.dataset.tone = tone;
  setAttribute(byId("mark").firstElementChild, "d", MARKS[mark]);
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
    update: (node, { words }) => setWords(node, words),
  });
  show(byId("remedy"), paragraphs.some(Boolean));
}

/** Codes of what is wrong beside the connection, as `explain` and `advice.json` know them. */
function troubles({ at_us: nowUs, journal, reasons, timeline, lag_s: lagS }) {
  const known = {
    "journal-full": journal.full,
    "too-many-rejects": reasons.some((reason) => reason.includes("are no hits")),
    LivestreamLagging: lagS >= BEHIND_S && !journal.full,
    likely: gapsLikely(timeline, nowUs),
  };
  return Object.keys(known).filter((code) => known[code]);
}

/** What to do, why it is so, and where more is said. `rest` says of the connection what to do already. */
function advise(tone, rest, code, others, due) {
  if (!["warn", "bad"].includes(tone)) return [rest, due];
  const codes = [...(rest && code ? [code] : []), ...others];
  const causes = codes.flatMap((each) => advice[each]?.causes ?? []);
  return [
    rest,
    ...others.map((each) => advice[each]?.do),
    due,
    causes.length > 0 && `Likely causes: ${causes.join("; ")}.`,
    codes.length > 0 && `More: ${codes.map((each) => `\`livestream-collector explain ${each}\``).join(", ")}`,
  ];
}

export function showHeadline(status) {
  const { connection } = status;
  const [tone, mark, word] = look(status);
  const [first, rest] = firstAndRest(status.sentence);
  showLook(tone, mark, word);
  headline(first);
  asOf(status.at_us, `As of ${bothTimes(status.at_us, { seconds: true })}`);
  setText(byId("where"), status.stream);
  document.title = `${word} · ${status.stream}`;
  const next = connection.next_attempt_us;
  const due = next && `The next request is sent at ${bothTimes(next, { seconds: true })}, by itself.`;
  showRemedy(advise(tone, rest, connection.code, troubles(status), due));
  announce([word, connection.code, status.reasons.length].join(), `${word}. ${status.sentence}`);
}

function showRefusal(last) {
  asOf(last.at_us, `Last heard ${bothTimes(last.at_us, { seconds: true })}`);
  const [, rest] = firstAndRest(last.sentence);
  showRemedy([
    ...advise("bad", rest, last.connection.code, [], ""),
    "It has ended, and collects nothing until it is started again. What it had taken is kept.",
  ]);
}

/** Nothing is heard. `last` is what was heard last and so long ago, or null: this page was loaded, then nothing came. */
export function showSilence(last, agoS) {
  if (last?.connection.state === "refused") {
    showRefusal(last); // Why it ended is known, and asks for a person.
    return;
  }
  const calm = last !== null && ["draining", "stopped"].includes(last.connection.state);
  const word = calm ? "Stopped" : "No answer";
  showLook(...(calm ? ["still", "square"] : ["bad", "alarm"]), word);
  const since = last === null ? "" : ` since ${utc(last.at_us)}`;
  const sentence = calm ? `The collector was told to stop and has not answered${since}.` : `The collector has not answered${since}.`;
  headline(sentence);
  if (last !== null) {
    asOf(last.at_us, `Last heard ${bothTimes(last.at_us, { seconds: true })}, ${duration(Math.floor(agoS))} ago`);
  }
  showRemedy([
    calm
      ? "It is not running, and collects nothing, until it is started again."
      : "It has ended, is being restarted, or this browser does not reach its host any more. While it does not run nothing is collected.",
    last?.journal.durability === "memory"
      ? "What it had taken is in memory: the next start goes on with it, unless its host was restarted."
      : "What it had taken is safe: the next start goes on with what is in the journal.",
    `See on its host: \`livestream-collector status${last === null ? "" : ` --output ${last.output} --stream ${last.stream}`}\``,
    "This page asks again every few seconds, and needs no reload.",
  ]);
  document.title = `${word} · ${last === null ? "livestream-collector" : last.stream}`;
  announce(word, `${word}. ${sentence}`);
}
