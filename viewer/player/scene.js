"use strict";
// What is shown of a beatmap at any time: the same items as `frame` in scene.py, from the data that
// player_page.py ships. No drawing and no page here. Positions in osu! pixels, times in ms.

function ramp(value) {
  return Math.min(Math.max(value, 0), 1);
}

class Thing {
  // One object; `line` becomes [[x, y], ...] with the arc length from the head to each point.
  constructor(data, index, middle) {
    Object.assign(this, data);
    this.index = index;
    this.end = data.end ?? data.time;
    this.slides = data.slides ?? 1;
    const flat = data.line ?? (data.kind === "spinner" ? middle : [data.x, data.y]);
    this.line = [];
    for (let i = 0; i < flat.length; i += 2) this.line.push([flat[i], flat[i + 1]]);
    this.lengths = [0];
    for (let i = 1; i < this.line.length; i++) {
      const [a, b] = [this.line[i - 1], this.line[i]];
      this.lengths.push(this.lengths[i - 1] + Math.hypot(b[0] - a[0], b[1] - a[1]));
    }
    this.span = (this.end - this.time) / this.slides;
  }

  get head() { return this.line[0]; }
  get tail() { return this.line[this.line.length - 1]; }
  get exit() { return this.slides % 2 === 0 ? this.head : this.tail; }

  slidesAt(time) {
    if (time < this.time) return 0;
    if (this.span <= 0) return this.slides;
    return Math.min((time - this.time) / this.span, this.slides);
  }

  ballAt(time) {
    const slides = this.slidesAt(time);
    const span = Math.min(Math.floor(slides), this.slides - 1);
    const fraction = slides - span;
    const total = this.lengths[this.lengths.length - 1];
    return this.placeAt((span % 2 ? 1 - fraction : fraction) * total);
  }

  placeAt(length) {
    let after = this.lengths.findIndex((value) => value >= length);
    if (after === -1) after = this.lengths.length - 1;
    if (after === 0) return this.line[0];
    const [a, b] = [this.line[after - 1], this.line[after]];
    const step = this.lengths[after] - this.lengths[after - 1];
    const part = step > 0 ? (length - this.lengths[after - 1]) / step : 0;
    return [a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1])];
  }

  // Angle in which the path goes back into the slider from its tail, or from its head.
  backFrom(tail) {
    const line = tail ? [...this.line].reverse() : this.line;
    const next = line.find((p) => Math.hypot(p[0] - line[0][0], p[1] - line[0][1]) > 1e-3);
    return next ? Math.atan2(next[1] - line[0][1], next[0] - line[0][0]) : 0;
  }
}

class Scene {
  constructor(map, look) {
    this.map = map;
    this.look = look;
    this.radius = map.radius;
    this.things = map.objects.map((data, index) => new Thing(data, index, look.middle));
  }

  item(kind, thing, [x, y], radius, alpha, angle = 0) {
    const { number, colour } = thing;
    return { kind, thing: thing.index, x, y, radius, angle, alpha, number, colour };
  }

  // What is shown at `time` when everything is hit on time, from the bottom to the top.
  frame(time) {
    const points = [], objects = [], approaches = [];
    for (let i = this.things.length - 1; i >= 0; i--) {
      const thing = this.things[i];
      if (i > 0) points.push(...this.followPoints(this.things[i - 1], thing, time));
      const fadeIn = this.fadeIn(thing, time);
      if (fadeIn <= 0 || time >= thing.end + this.look.hitFade) continue;
      if (thing.kind === "spinner") {
        objects.push(this.spinner(thing, time, fadeIn));
        continue;
      }
      if (thing.kind === "slider") objects.push(...this.slider(thing, time, fadeIn));
      else objects.push(...this.circle(thing, time, fadeIn));
      approaches.push(...this.approach(thing, time));
    }
    return [...points, ...objects, ...approaches];
  }

  fadeIn(thing, time) {
    const lead = thing.kind === "spinner" ? this.map.fadeIn : this.map.preempt;
    return ramp((time - thing.time + lead) / this.map.fadeIn);
  }

  fadeOut(end, time) {
    return 1 - ramp((time - end) / this.look.hitFade);
  }

  spinner(thing, time, fadeIn) {
    const duration = thing.end - thing.time;
    const done = duration > 0 ? ramp((time - thing.time) / duration) : Number(time >= thing.time);
    const [first, last] = this.look.spinnerRadii;
    const angle = this.look.spinnerSpeed * Math.min(Math.max(time - thing.time, 0), duration);
    const alpha = Math.min(fadeIn, this.fadeOut(thing.end, time));
    return this.item("spinner", thing, thing.head, first + (last - first) * done, alpha, angle);
  }

  circle(thing, time, fadeIn) {
    const hit = 1 - this.fadeOut(thing.time, time);
    if (hit >= 1) return [];
    const radius = this.radius * (1 + this.look.hitGrowth * hit);
    return [this.item("circle", thing, thing.head, radius, Math.min(fadeIn, 1 - hit))];
  }

  approach(thing, time) {
    const left = thing.time - time, { preempt, fadeIn } = this.map;
    if (left <= 0) return [];
    const radius = this.radius * (1 + (this.look.approachScale - 1) * left / preempt);
    const faded = ramp((preempt - left) / Math.min(2 * fadeIn, preempt));
    return [this.item("approach", thing, thing.head, radius, this.look.approachAlpha * faded)];
  }

  slider(thing, time, fadeIn) {
    const alpha = Math.min(fadeIn, this.fadeOut(thing.end, time));
    const items = [this.item("body", thing, thing.head, this.radius, alpha)];
    items.push(...this.arrows(thing, time, fadeIn), ...this.circle(thing, time, fadeIn));
    if (thing.time <= time && time <= thing.end) {
      const ball = thing.ballAt(time);
      const grown = ramp((time - thing.time) / this.look.followFade);
      const around = this.radius * (1 + (this.look.followRadius - 1) * grown);
      items.push(this.item("ball", thing, ball, this.radius, 1));
      items.push(this.item("follow", thing, ball, around, grown));
    }
    return items;
  }

  // The next reverse arrow at the tail, and at the head once that is hit.
  arrows(thing, time, fadeIn) {
    const passed = Math.floor(thing.slidesAt(time)), arrows = [];
    for (const repeat of [passed + 1, passed + 2]) {
      const atTail = repeat % 2 === 1;
      if (repeat >= thing.slides || (!atTail && time < thing.time)) continue;
      const place = atTail ? thing.tail : thing.head;
      arrows.push(this.item("arrow", thing, place, this.radius, fadeIn, thing.backFrom(atTail)));
    }
    return arrows;
  }

  // The dots that lead from an object's end to the next one of its combo.
  followPoints(before, after, time) {
    if (after.newCombo || before.kind === "spinner" || after.kind === "spinner") return [];
    const { pointLead, shortestPreempt, firstPoint, lastPoint, pointSpacing } = this.look;
    const start = before.end, stop = after.time, fade = this.map.fadeIn;
    const lead = pointLead * Math.min(1, this.map.preempt / shortestPreempt);
    if (!(start - lead < time && time < stop + fade)) return [];
    const [x, y] = before.exit, dx = after.head[0] - x, dy = after.head[1] - y;
    const distance = Math.hypot(dx, dy), angle = Math.atan2(dy, dx), points = [];
    const room = Math.max(Math.ceil((distance - lastPoint - firstPoint) / pointSpacing), 0);
    for (let k = 0; k < Math.min(room, this.look.maxPoints); k++) {
      const fraction = (firstPoint + k * pointSpacing) / distance;
      const vanishes = start + fraction * (stop - start);
      const alpha = Math.min(ramp((time - vanishes + lead) / fade), 1 - ramp((time - vanishes) / fade));
      if (alpha <= 0) continue;
      const place = [x + fraction * dx, y + fraction * dy];
      points.push(this.item("point", after, place, this.look.pointRadius, alpha, angle));
    }
    return points;
  }
}
