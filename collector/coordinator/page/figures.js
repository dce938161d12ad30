// Everything below the headline. Each part is a function of one status.

import { Chart, niceCeiling, niceDuration } from "./charts.js";
import { byId, element, keep, setAttribute, setText, setWords, shape, show } from "./dom.js";
import { drawStrip } from "./strip.js";
import { bytes, count, counted, duration, iso, local, rate, utc } from "./words.js";

const GAPS = { no: ["busy", "nothing missed"], possible: ["warn", "hits may be missing"], likely: ["bad", "hits are likely missing"] };
const MARKS = {
  open: "M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18z",
  no: "M4 10h16v4H4z",
  possible: "M12 2l10 10-10 10L2 12z",
  likely: "M12 2l11 20H1z",
};
const NEARLY = 0.8;
const LISTED = 6; // Of connections, gaps and rejects.
const CONNECTED = new Set(["streaming", "paused", "draining"]);

let charts = null;

export function showFigures(status) {
  showCharts(status);
  showTotals(status);
  showConnection(status);
  showMeters(status);
  showShipping(status);
  showProcesses(status);
  showRejects(status);
  showAbout(status);
}

/** A list of terms with their values: `[[term, value], ...]`. */
function showTerms(list, terms) {
  keep(list, terms, {
    key: ([term]) => term,
    make: ([term]) => element("div", {}, element("dt", {}, term), element("dd")),
    update: (node, [, value, sign]) => {
      setText(node.children[1], value);
      setAttribute(node, "data-sign", sign);
      setAttribute(node.children[1], "data-sign", sign);
    },
  });
}

function showCharts(status) {
  charts ??= {
    hits: new Chart(byId("hits"), { label: "Hits per second", unit: "a second", words: rate, ceiling: niceCeiling }),
    lag: new Chart(byId("lag"), { label: "Lag to Parquet", unit: "", words: duration, ceiling: niceDuration }),
  };
  const away = awayIn(status.history);
  for (const [name, field] of [["hits", "hits_per_s"], ["lag", "lag_s"]]) {
    const samples = status.history.map((sample) => ({ at: sample.at_us, value: sample[field] }));
    charts[name].show(status[field], samples, away);
  }
}

/** Spans of the history in which no connection was open. */
function awayIn(history) {
  const spans = [];
  let open = true;
  for (const { at_us: at, state } of history) {
    if (CONNECTED.has(state)) open = true;
    else if (open) open = !spans.push({ from: at, to: at });
    if (!open) spans.at(-1).to = at;
  }
  return spans;
}

function showTotals({ totals, journal }) {
  showTerms(byId("totals"), [
    ["records", count(totals.records)],
    ["rows in Parquet", count(totals.rows), "="],
    ["resends, dropped", count(totals.resends), "+"],
    ["rejects, kept apart", count(totals.rejects), "+"],
  ]);
  const waiting = journal.waiting_records;
  setText(byId("totals-note"), waiting === 0
    ? "For life, and all of it committed: nothing waits in the journal."
    : `For life, as committed. ${counted(waiting, "record")} more ${waiting === 1 ? "is" : "are"} durable in the journal and become${waiting === 1 ? "s" : ""} Parquet with the next batch.`);
}

// ---------------------------------------------------------------- connection

function showConnection(status) {
  const { connection, at_us: nowUs } = status;
  const words = CONNECTED.has(connection.state)
    ? `Connection ${connection.number} to ${connection.host}, open for ${duration((nowUs - connection.since_us) / 1e6)}: ${counted(connection.records, "record")}, ${bytes(connection.bytes_received)} of gzip.`
    : "No connection is open.";
  setText(byId("connection"), words);
  show(byId("strip"), status.timeline.length > 0);
  drawStrip(byId("strip"), status.timeline, nowUs);
  showNewest("timeline", [...status.timeline].reverse(), {
    key: (entry) => `${entry.kind} ${entry.number} ${entry.began_us}`,
    make: makeEntry,
    update: (node, entry) => updateEntry(node, entry, nowUs),
  });
}

function makeEntry() {
  return element("li", {},
    shape("svg", { class: "mark", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, shape("path")),
    element("div", { class: "when" }, element("time"), element("span", { class: "soft" })),
    element("div", { class: "what" }, element("span"), element("span", { class: "note" })));
}

function updateEntry(node, entry, nowUs) {
  const gap = entry.kind === "gap";
  const [tone, missed] = gap ? GAPS[entry.suspected] : ["good", ""];
  const lasted = duration(((entry.ended_us || nowUs) - entry.began_us) / 1e6);
  const [mark, when, what] = node.children;
  node.dataset.tone = tone;
  setAttribute(mark.firstElementChild, "d", MARKS[gap ? entry.suspected : "open"]);
  showTime(when.children[0], when.children[1], entry.began_us, nowUs);
  const [head, note] = what.children;
  if (gap) {
    setText(head, `Gap of ${lasted}: ${missed}`);
    setText(note, entry.words);
  } else {
    setText(head, `Connection ${entry.number}, ${entry.ended_us ? "" : "open for "}${lasted}, ${counted(entry.records, "record")}`);
    setText(note, entry.ended_us ? entry.words : "");
  }
}

/** The first few in the list itself, the others folded away behind it. */
function showNewest(id, items, how) {
  const more = byId(`${id}-more`);
  const others = items.slice(LISTED);
  keep(byId(id), items.slice(0, LISTED), how);
  keep(more.lastElementChild, others, how);
  setText(more.firstElementChild, `${count(others.length)} earlier`);
  show(more, others.length > 0);
}

/** UTC in one element, the reader's own time in the other. */
function showTime(time, here, us, nowUs) {
  setAttribute(time, "datetime", iso(us));
  setText(time, utc(us, { seconds: true, nowUs }));
  setText(here, local(us, { seconds: true, nowUs }));
}

// ---------------------------------------------------------------- room

function showMeters({ journal, disk }) {
  keep(byId("meters"), [journalMeter(journal, disk), diskMeter(disk)], {
    key: (meter) => meter.name,
    make: makeMeter,
    update: updateMeter,
  });
}

function journalMeter({ used_bytes: used, max_bytes: most, durability, full }, disk) {
  const short = disk.free_bytes < disk.reserve_bytes
    ? "It gets no more room: the disk has too little. Reading goes on by itself when it has."
    : "Full: reading goes on by itself when batches are committed.";
  const kept = durability === "memory"
    ? "In memory: what waits in it survives every process, but not the host."
    : "On disk: what waits in it survives a power failure.";
  return {
    name: "Journal",
    part: used / Math.max(1, most),
    words: `${bytes(used)} of ${bytes(most)}`,
    note: full ? short : kept,
    tone: full ? "bad" : used > NEARLY * most ? "warn" : "good",
  };
}

function diskMeter({ free_bytes: free, total_bytes: total, reserve_bytes: reserve }) {
  return {
    name: "Disk",
    part: 1 - free / Math.max(1, total),
    words: `${bytes(free)} free of ${bytes(total)}`,
    note: reserve === 0 ? "Output and state folder." : `Reading pauses when less than ${bytes(reserve)} is free.`,
    tone: free < reserve ? "bad" : free < 2 * reserve ? "warn" : "good",
  };
}

function makeMeter({ name }) {
  return element("div", { class: "meter" },
    element("div", { class: "line" }, element("span", {}, name), element("span")),
    element("div", { class: "bar", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100 }, element("div")),
    element("p", { class: "note" }));
}

function updateMeter(node, { part, words, note, tone }) {
  const [line, bar, below] = node.children;
  const percent = Math.round(100 * Math.min(1, Math.max(0, part)));
  node.dataset.tone = tone;
  setText(line.children[1], words);
  setAttribute(bar, "aria-valuenow", percent);
  setAttribute(bar, "aria-valuetext", words);
  bar.firstElementChild.style.width = `${percent}%`;
  setText(below, note);
}

// ---------------------------------------------------------------- shipping

function showShipping({ ship }) {
  show(byId("shipping"), Boolean(ship));
  if (!ship) return;
  const where = [ship.url && `to ${ship.url}`, ship.table && `into the table (${ship.table})`].filter(Boolean).join(" and ");
  const behind = ship.behind_parts === 0 ? "None is behind." : `${counted(ship.behind_parts, "part")} (${bytes(ship.behind_bytes)}) ${ship.behind_parts === 1 ? "is" : "are"} behind, the oldest for ${duration(ship.lag_s)}.`;
  setText(byId("shipping-words"), `Parts go ${where}: ${counted(ship.parts, "part")}, ${bytes(ship.bytes)} so far. ${behind}`);
  setWords(byId("shipping-note"), ship.failure === ""
    ? "The collector never waits for it: what is behind is kept here."
    : `Nothing goes out now: ${ship.reason.replaceAll("`", "'")}. It is tried again; what is behind is kept here. More: \`livestream-collector explain ${ship.failure}\``);
}

// ---------------------------------------------------------------- decoders, rejects, about

function showProcesses({ children, decoder }) {
  keep(byId("processes"), children, {
    key: (child) => child.name,
    make: ({ name }) => element("tr", {}, element("th", { scope: "row" }, name), element("td"),
      element("td", { class: "number" }), element("td", { class: "number" })),
    update: (node, child) => {
      const values = [child.state, count(child.restarts), child.pid ? String(child.pid) : "–"];
      for (const [index, value] of values.entries()) setText(node.children[index + 1], value);
    },
  });
  setText(byId("processes-note"), decoder === "kernel" ? "The compiled kernel decodes." : "The plain twin decodes: slower, with the same rows.");
}

function showRejects({ rejects, at_us: nowUs }) {
  show(byId("rejects-none"), rejects.length === 0);
  show(byId("rejects"), rejects.length > 0);
  showNewest("rejects", rejects, {
    key: (reject) => `${reject.block} ${reject.line}`,
    make: (reject) => element("li", {},
      element("div", {}, element("time"), " ", element("span", { class: "soft" })),
      element("div", {}, reject.reason),
      ...(reject.text ? [element("code", { class: "text" }, reject.text)] : []),
      element("div", { class: "note" }, `${bytes(reject.length)}, block ${reject.block}, line ${reject.line}`)),
    update: (node, reject) => showTime(node.children[0].children[0], node.children[0].children[1], reject.at_us, nowUs),
  });
}

const TOKENS = { static: "given once", file: "from a file", oauth: "by OAuth, renewed by itself", none: "none" };

function showAbout(status) {
  const { token, at_us: nowUs } = status;
  const until = token.expires_us ? `, valid until ${utc(token.expires_us, { nowUs })}` : "";
  showTerms(byId("about"), [
    ["Version", status.version],
    ["Started", utc(status.started_us, { nowUs })],
    ["Token", TOKENS[token.kind] + until],
    ["Pid", String(status.pid)],
    ["Instance", status.instance],
    ["Output", status.output],
  ]);
}
