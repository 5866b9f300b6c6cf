// The timeline: how many objects there are when, and the part that is chosen, by handles or times
// as osu!'s editor copies them. props.times are the objects' times in ms; props.value is
// {start, end} in ms, null where the part reaches to that end of the map.

const BARS = 96;
const find = (selector) => element.querySelector(selector);
const [bars, count, whole] = [find(".bars"), find("output"), find("button")];
const ends = ["from", "to"].map((name) => find(`.end.${name}`));
const fields = ["from", "to"].map((name) => find(`.time.${name}`));

const two = (n) => String(n).padStart(2, "0");
const written = (ms) => {
  const size = Math.floor(Math.abs(ms)), sign = ms < 0 && size ? "-" : "";
  return `${sign}${two(Math.floor(size / 60000))}:${two(Math.floor(size / 1000) % 60)}`
    + `:${String(size % 1000).padStart(3, "0")}`;
};

// ms of "mm:ss:mmm", whatever the editor copies after it, or of a number; NaN for anything else.
const read = (text) => {
  const stamp = /^\s*(-?)(\d{1,4}):([0-5]?\d)[:.](\d{3})(?!\d)/.exec(text);
  if (!stamp) return text.trim() ? Number(text) : NaN;
  const [, sign, minutes, seconds, ms] = stamp;
  return (sign ? -1 : 1) * (60000 * minutes + 1000 * seconds + Number(ms));
};

const limits = () => {
  const times = props.times;
  return times.length ? [Math.floor(times[0]), Math.floor(times[times.length - 1])] : [0, 0];
};

// The part as numbers.
const part = () => limits().map((limit, k) => (props.value ?? {})[k ? "end" : "start"] ?? limit);

const choose = (start, end) => {
  const [first, last] = limits();
  const next = { start: start > first ? start : null, end: end < last ? end : null };
  if (JSON.stringify(next) !== JSON.stringify(props.value)) props.value = next;
  show();
};

const show = () => {
  const [first, last] = limits(), now = part(), span = Math.max(last - first, 1);
  ends.forEach((end, k) => {
    [end.min, end.max, end.value] = [first, last, now[k]];
    end.setAttribute("aria-valuetext", written(now[k]));
    fields[k].value = written(now[k]);
  });
  const inside = (time) => Math.floor(time) >= now[0] && Math.floor(time) <= now[1];
  const chosen = props.times.filter(inside).length;
  count.textContent = `${chosen} of ${props.times.length} objects`;
  whole.hidden = now[0] === first && now[1] === last;
  [...bars.children].forEach((bar, k) => {
    const middle = first + (k + 0.5) / BARS * span;
    bar.classList.toggle("in", middle >= now[0] && middle <= now[1]);
  });
};

const build = () => {
  const [first, last] = limits(), heights = new Array(BARS).fill(0);
  for (const time of props.times) {
    heights[Math.min(Math.floor((time - first) / Math.max(last - first, 1) * BARS), BARS - 1)] += 1;
  }
  const most = Math.max(...heights, 1);
  bars.replaceChildren(...heights.map((height) => {
    const bar = document.createElement("i");
    bar.style.height = `${100 * height / most}%`;
    return bar;
  }));
  show();
};

ends.forEach((end, k) => end.addEventListener("input", () => {
  const now = part();
  now[k] = Number(end.value);
  // A handle that is drawn over the other one stops there.
  now[k] = k ? Math.max(now[0], now[1]) : Math.min(now[0], now[1]);
  choose(...now);
}));
fields.forEach((field, k) => field.addEventListener("change", () => {
  const now = part(), time = read(field.value), [first, last] = limits();
  if (Number.isFinite(time)) now[k] = Math.min(Math.max(time, first), last);
  if (now[0] <= now[1]) choose(...now);
  else show();
}));
whole.addEventListener("click", () => choose(-Infinity, Infinity));
watch(["value", "times"], build);
build();
