"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const canvas = element("map"), tip = element("tip"), context = canvas.getContext("2d");
const REACH = 12; // CSS px within which a point is pointed at
const view = { scale: 1, x: 0, y: 0 }; // CSS px a unit, and where the origin is
let colouring = data.colourings[0], found = null, pointed = -1;

function fit() {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const xs = data.points.map((p) => p[0]), ys = data.points.map((p) => p[1]);
  const low = [Math.min(...xs), Math.min(...ys)], high = [Math.max(...xs), Math.max(...ys)];
  const size = [high[0] - low[0] || 1, high[1] - low[1] || 1];
  view.scale = 0.92 * Math.min(width / size[0], height / size[1]);
  view.x = width / 2 - (view.scale * (low[0] + high[0])) / 2;
  view.y = height / 2 - (view.scale * (low[1] + high[1])) / 2;
}

function place(index) {
  const [x, y] = data.points[index];
  return [view.x + view.scale * x, view.y + view.scale * y];
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  context.scale(ratio, ratio);
  for (const index of colouring.order) {
    const hit = !found || found.has(index);
    context.globalAlpha = hit ? 0.9 : 0.12;
    dot(index, found && hit ? 5 : 3.5);
  }
  context.globalAlpha = 1;
  if (pointed >= 0) {
    dot(pointed, 6);
    context.strokeStyle = "#000";
    context.stroke();
  }
}

function dot(index, radius) {
  const [x, y] = place(index);
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colouring.colours[index];
  context.fill();
}

function nearest(x, y) {
  let best = -1, least = REACH * REACH;
  for (let index = 0; index < data.points.length; index++) {
    const [px, py] = place(index);
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away < least) [best, least] = [index, away];
  }
  return best;
}

function point(x, y) {
  pointed = nearest(x, y);
  tip.hidden = pointed < 0;
  if (pointed >= 0) {
    tip.textContent = `${data.names[pointed]}\n${data.details[pointed]}`;
    const left = Math.min(x + 14, canvas.clientWidth - tip.offsetWidth - 4);
    const below = y + 14 + tip.offsetHeight < canvas.clientHeight;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${below ? y + 14 : Math.max(4, y - 14 - tip.offsetHeight)}px`;
  }
  draw();
}

function zoom(x, y, factor) {
  view.x = x + (view.x - x) * factor;
  view.y = y + (view.y - y) * factor;
  view.scale *= factor;
}

function line(parent, className, ...children) {
  const made = document.createElement("div");
  made.className = className;
  made.append(...children);
  parent.append(made);
}

function showLegend() {
  const legend = element("legend");
  legend.replaceChildren();
  for (const [label, colour] of colouring.legend) {
    const mark = document.createElement("i");
    mark.style.background = colour;
    line(legend, "", mark, label);
  }
  if (colouring.gradient) {
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.background = `linear-gradient(to right, ${colouring.gradient.join(",")})`;
    line(legend, "", bar);
    const ends = colouring.ends.map((text) => {
      const end = document.createElement("span");
      end.textContent = text;
      return end;
    });
    line(legend, "ends", ...ends);
  }
}

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = data.names.map((name, index) => `${name} ${data.details[index]}`.toLowerCase());
  const hits = texts.flatMap((t, index) => (words.every((word) => t.includes(word)) ? [index] : []));
  found = words.length ? new Set(hits) : null;
  element("found").textContent = found ? `${found.size} of ${texts.length}` : "";
  draw();
}

const pointers = new Map();
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  point(event.offsetX, event.offsetY);
});
canvas.addEventListener("pointermove", (event) => {
  const here = [event.offsetX, event.offsetY], last = pointers.get(event.pointerId);
  if (last && pointers.size === 1) {
    view.x += here[0] - last[0];
    view.y += here[1] - last[1];
  } else if (last && pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const distance = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    zoom(...other, distance(here) / distance(last));
  }
  if (last) pointers.set(event.pointerId, here);
  point(...here);
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
}
canvas.addEventListener("pointerleave", () => point(-1e9, -1e9));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.offsetX, event.offsetY, Math.exp(-event.deltaY / 400));
  point(event.offsetX, event.offsetY);
}, { passive: false });
element("colouring").append(...data.colourings.map((entry) => new Option(entry.name, entry.name)));
element("colouring").addEventListener("change", (event) => {
  colouring = data.colourings[event.target.selectedIndex];
  showLegend();
  draw();
});
element("search").addEventListener("input", (event) => search(event.target.value));
element("reset").addEventListener("click", () => { fit(); draw(); });
new ResizeObserver(() => { fit(); draw(); }).observe(canvas);
showLegend();
