// Curves over time and the strip of connections, drawn as SVG in real pixels: text keeps its size on any screen.

import { element, keep, setAttribute, setText, shape } from "./dom.js";
import { duration, local, utc } from "./words.js";

const HEIGHT = 152;
const TOP = 16;
const BOTTOM = 20;
const BREAK = 4; // A pause of this many times the usual step between two samples interrupts the curve.
const PX_PER_SAMPLE = 3;
const TABLE_ROWS = 12;

/** The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `value`. */
export function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value) * power;
}

const DURATIONS_S = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 4 * 3600, 12 * 3600];

/** The same for seconds, in steps that read well as minutes and hours. */
export const niceDuration = (seconds) =>
  DURATIONS_S.find((step) => step >= seconds) ?? 86400 * niceCeiling(seconds / 86400);

/** Runs of samples without a pause: `[{at, value}, ...]` each. */
function runs(samples) {
  const steps = samples.slice(1).map((sample, index) => sample.at - samples[index].at).sort((a, b) => a - b);
  const usual = steps[Math.floor(steps.length / 2)] ?? 0;
  const found = [];
  for (const [index, sample] of samples.entries()) {
    const begins = index === 0 || sample.at - samples[index - 1].at > BREAK * usual;
    if (begins) found.push([]);
    found.at(-1).push(sample);
  }
  return found;
}

/** At most `most` samples: of each stretch of time the largest value, so that no peak is hidden. */
function thinned(samples, most) {
  const step = Math.ceil(samples.length / most);
  if (step === 1) return samples;
  const kept = [];
  for (let end = samples.length; end > 0; end -= step) {
    const stretch = samples.slice(Math.max(0, end - step), end);
    kept.unshift({ at: stretch.at(-1).at, value: Math.max(...stretch.map((sample) => sample.value)) });
  }
  return kept;
}

/** Three moments of a span as labels: its begin, middle and end. */
function timeLabels(from, to, width, y) {
  return [[from, 0, "start"], [(from + to) / 2, width / 2, "middle"], [to, width, "end"]].map(([at, x, anchor]) =>
    shape("text", { x, y, "text-anchor": anchor }, utc(at, { nowUs: to }).replace(" UTC", anchor === "end" ? " UTC" : "")),
  );
}

/** One figure: its label, the value now, the curve, and the same as a table. */
export class Chart {
  /** `words` gives a value as text, `unit` is said behind it, `ceiling` gives the axis its end. */
  constructor(figure, { label, unit, words, ceiling }) {
    this.figure = figure;
    this.label = label;
    this.words = words;
    this.ceiling = ceiling;
    this.drawn = null;
    this.value = element("span");
    this.svg = shape("svg", { role: "img", "aria-label": label });
    this.body = element("tbody");
    this.summary = element("p", { class: "note" });
    figure.append(
      element("figcaption", {},
        element("span", { class: "label" }, label),
        element("div", { class: "value" }, this.value, element("span", { class: "unit" }, unit))),
      this.svg,
      this.summary,
      element("details", {}, element("summary", {}, `${label} as a table`),
        element("table", {},
          element("thead", {}, element("tr", {},
            element("th", { scope: "col" }, "UTC"), element("th", { scope: "col", class: "number" }, label))),
          this.body)),
    );
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.pointer = null; // Where it is over the curve, in pixels.
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  /** `samples`: `[{at, value}, ...]`, the oldest first; `away`: spans without a connection, `[{from, to}, ...]`. */
  show(now, samples, away) {
    this.drawn = { samples, away };
    setText(this.value, now === null ? "–" : this.words(now));
    this.describe(now);
    this.draw();
  }

  describe(now) {
    const { samples, away } = this.drawn;
    this.figure.classList.toggle("empty", samples.length < 2);
    if (samples.length < 2) {
      setText(this.summary, "No curve yet.");
      setAttribute(this.svg, "aria-label", `${this.label}: no curve yet`);
      keep(this.body, [], {});
      return;
    }
    const values = samples.map((sample) => sample.value);
    const span = duration((samples.at(-1).at - samples[0].at) / 1e6);
    const between = `between ${this.words(Math.min(...values))} and ${this.words(Math.max(...values))}`;
    const breaks = away.length === 0 ? "" : `; hatched: no connection (${away.length === 1 ? "once" : `${away.length} times`})`;
    setText(this.summary, `${span}, ${between}${breaks}`);
    setAttribute(this.svg, "aria-label", `${this.label}: now ${now === null ? "unknown" : this.words(now)}; over the last ${span} ${between}`);
    const step = Math.max(1, Math.ceil(samples.length / TABLE_ROWS));
    const rows = samples.filter((_, index) => (samples.length - 1 - index) % step === 0).reverse();
    keep(this.body, rows.map((sample, index) => ({ ...sample, index })), {
      key: (row) => row.index,
      make: () => element("tr", {}, element("td"), element("td", { class: "number" })),
      update: (node, row) => {
        setText(node.children[0], utc(row.at, { seconds: true }).replace(" UTC", ""));
        setText(node.children[1], this.words(row.value));
      },
    });
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!this.drawn || width === 0) return;
    const { samples, away } = this.drawn;
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    if (samples.length < 2) {
      this.svg.replaceChildren();
      return;
    }
    const from = samples[0].at;
    const to = samples.at(-1).at;
    const top = this.ceiling(Math.max(...samples.map((sample) => sample.value)));
    const x = (at) => (width * (Math.min(Math.max(at, from), to) - from)) / (to - from);
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * value) / top;
    this.scale = { from, to, x, y, width };
    const parts = [hatching(`${this.figure.id}-away`)];
    for (const span of away) {
      const left = x(span.from);
      const size = Math.max(2, x(span.to) - left);
      parts.push(shape("rect", { x: left, y: TOP, width: size, height: HEIGHT - BOTTOM - TOP, class: "away", fill: `url(#${this.figure.id}-away)` }));
    }
    for (const run of runs(samples).map((all) => thinned(all, width / PX_PER_SAMPLE))) {
      const line = run.map((sample) => `${x(sample.at).toFixed(1)},${y(sample.value).toFixed(1)}`).join(" ");
      parts.push(shape("polygon", { class: "area", points: `${x(run[0].at).toFixed(1)},${y(0)} ${line} ${x(run.at(-1).at).toFixed(1)},${y(0)}` }));
      parts.push(shape("polyline", { class: "curve", points: line }));
    }
    for (const value of [0, top / 2, top]) {
      parts.push(shape("line", { class: "grid", x1: 0, x2: width, y1: y(value), y2: y(value) }));
    }
    parts.push(shape("text", { x: 0, y: TOP - 4 }, this.words(top)));
    this.svg.replaceChildren(...parts, ...timeLabels(from, to, width, HEIGHT - 4));
    this.point(this.pointer);
  }

  /** What the curve says under the pointer. */
  point(offset) {
    this.pointer = offset;
    this.cross?.remove();
    if (offset === null || this.drawn.samples.length < 2) return;
    const { from, to, x, y, width } = this.scale;
    const wanted = from + ((to - from) * offset) / width;
    const nearest = this.drawn.samples.reduce((best, sample) =>
      Math.abs(sample.at - wanted) < Math.abs(best.at - wanted) ? sample : best);
    const right = x(nearest.at) > width / 2;
    this.cross = shape("g", {},
      shape("line", { class: "cross", x1: x(nearest.at), x2: x(nearest.at), y1: TOP, y2: HEIGHT - BOTTOM }),
      shape("circle", { class: "dot", cx: x(nearest.at), cy: y(nearest.value), r: 3.5 }),
      shape("text", { x: x(nearest.at) + (right ? -8 : 8), y: 10, "text-anchor": right ? "end" : "start" },
        `${utc(nearest.at, { seconds: true })}  ${this.words(nearest.value)}`));
    this.svg.append(this.cross);
  }
}

function hatching(id) {
  return shape("defs", {}, shape("pattern",
    { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    shape("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 })));
}
