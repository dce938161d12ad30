// The last connections and the gaps between them as one strip over time.

import { setAttribute, shape } from "./dom.js";
import { duration, utc } from "./words.js";

const HEIGHT = 44;
const TOP = 4; // A gap that matters stands out above and below the rest.
const BAR = 14;
const LEAST_PX = 3; // A gap of a minute in a day must still be seen.
const LONGEST_US = 24 * 3600 * 1e6;

const strips = new WeakMap();

export function drawStrip(holder, timeline, nowUs) {
  let strip = strips.get(holder);
  if (!strip) {
    strip = { svg: shape("svg", { role: "img" }) };
    strips.set(holder, strip);
    holder.append(strip.svg);
    new ResizeObserver(() => draw(strip)).observe(strip.svg);
  }
  Object.assign(strip, { timeline, nowUs });
  draw(strip);
}

function draw({ svg, timeline, nowUs }) {
  const width = svg.clientWidth;
  if (width === 0) return;
  const from = Math.max(nowUs - LONGEST_US, Math.min(nowUs - 1e6, ...timeline.map((entry) => entry.began_us)));
  const x = (at) => (width * (Math.min(Math.max(at, from), nowUs) - from)) / (nowUs - from);
  const spans = timeline.filter((entry) => (entry.ended_us || nowUs) > from);
  // Gaps last, so that none is hidden under the connection beside it.
  const bars = spans.toSorted((a, b) => (a.kind === "gap") - (b.kind === "gap")).map((entry) => {
    const size = Math.max(LEAST_PX, x(entry.ended_us || nowUs) - x(entry.began_us));
    const left = Math.min(x(entry.began_us), width - size);
    const gap = entry.kind === "gap";
    const stands = gap && entry.suspected !== "no";
    return shape("rect", {
      class: gap ? `gap-${entry.suspected}` : "open",
      x: left, width: size,
      y: stands ? 0 : TOP, height: stands ? BAR + 2 * TOP : BAR,
    });
  });
  setAttribute(svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
  const gaps = spans.filter((entry) => entry.kind === "gap");
  const bad = gaps.filter((gap) => gap.suspected !== "no").length;
  setAttribute(svg, "aria-label", `The last ${duration((nowUs - from) / 1e6)}: ${gaps.length} gaps, ${bad} of them with hits that may be missing; all are listed below.`);
  const labels = [[from, 0, "start"], [nowUs, width, "end"]].map(([at, left, anchor]) =>
    shape("text", { x: left, y: HEIGHT - 4, "text-anchor": anchor }, anchor === "end" ? "now" : utc(at, { nowUs })));
  svg.replaceChildren(...bars, ...labels);
}
