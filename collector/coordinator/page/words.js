// Numbers, sizes, times and durations in the words of the page. Times come as microseconds since 1970.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const DURATIONS = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const ZONE = new Intl.DateTimeFormat().resolvedOptions().timeZone ?? "here";

export const count = (number) => WHOLE.format(number);

export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** One decimal where it says something: 0.4, 9.5, 12, 1,240. */
export const rate = (number) => (number < 9.95 ? TENTHS : WHOLE).format(number);

export function bytes(number) {
  let unit = 0;
  for (; number >= 1024 && unit < UNITS.length - 1; unit += 1) number /= 1024;
  return `${unit === 0 ? WHOLE.format(number) : rate(number)} ${UNITS[unit]}`;
}

/** Two units at most, and none that is nought: 0.4 s, 8 s, 4 min 10 s, 3 h, 2 d 3 h. */
export function duration(seconds) {
  if (seconds < 9.95) return `${TENTHS.format(Math.max(0, seconds))} s`;
  const whole = Math.floor(seconds);
  for (const [large, name, small, nameOfSmall] of DURATIONS) {
    if (whole < large) continue;
    const rest = Math.floor((whole % large) / small);
    return `${Math.floor(whole / large)} ${name}${rest === 0 ? "" : ` ${rest} ${nameOfSmall}`}`;
  }
  return `${whole} s`;
}

/** 14:02 or 14:02:31, with the day where it is not today's: `23 Nov 14:02`. */
function clock(us, { seconds = false, timeZone, nowUs }) {
  const options = { timeZone, hourCycle: "h23", hour: "2-digit", minute: "2-digit" };
  if (seconds) options.second = "2-digit";
  const time = new Intl.DateTimeFormat("en-GB", options).format(us / 1000);
  if (nowUs === undefined) return time;
  const day = new Intl.DateTimeFormat("en-GB", { timeZone, day: "numeric", month: "short" });
  const date = day.format(us / 1000);
  return date === day.format(nowUs / 1000) ? time : `${date} ${time}`;
}

export const utc = (us, options = {}) => `${clock(us, { ...options, timeZone: "UTC" })} UTC`;

/** The reader's own time, empty where that is UTC. */
export function local(us, options = {}) {
  return new Date(us / 1000).getTimezoneOffset() === 0 ? "" : `${clock(us, options)} local`;
}

export const iso = (us) => new Date(us / 1000).toISOString();
