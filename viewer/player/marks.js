// Places of the last map to look at: a list to jump from and to copy for osu!'s editor, ticks on the
// seek bar, rings around the objects.

const MARK = "#ff5470", MARK_RADIUS = 1.35; // the ring's radius in circle radii
const MARK_LEAD = 600; // ms before an object that a jump to it arrives at

class Marks {
  // scene: of the map that the marks are of. jump: what to do with a time that was chosen.
  constructor(list, scene, jump) {
    Object.assign(this, { list, scene, jump });
    this.numbers = new Map(list.map((mark, k) => [mark.index, k + 1]));
  }

  // The list, folded, in an element of the page.
  fill(element) {
    element.hidden = !this.list.length;
    if (element.hidden) return;
    const summary = document.createElement("summary"), rows = document.createElement("ol");
    summary.textContent = `Places to look at by hand (${this.list.length})`;
    rows.append(...this.list.map((mark) => this.row(mark)));
    element.replaceChildren(summary, rows);
  }

  row(mark) {
    const row = document.createElement("li"), button = document.createElement("button");
    const stamp = document.createElement("code");
    button.textContent = "Show";
    button.setAttribute("aria-label", `Show ${mark.at}`);
    button.addEventListener("click", () => this.jump(this.scene.things[mark.index].time - MARK_LEAD));
    stamp.textContent = mark.at;
    const source = mark.in_source ? " (also in the source)" : "";
    row.append(button, " ", stamp, `${mark.kind}: ${mark.text}${source}`);
    return row;
  }

  // Rings around the marked ones of the items that are drawn.
  drawRings(context, items) {
    for (const { kind, thing, x, y, radius, alpha } of items) {
      if (kind !== "circle" || !this.numbers.has(thing)) continue;
      context.globalAlpha = alpha;
      ring(context, x, y, MARK_RADIUS * radius, 5, MARK);
      context.font = "bold 26px system-ui, sans-serif";
      context.textAlign = "left";
      context.textBaseline = "bottom";
      context.fillStyle = MARK;
      context.fillText(String(this.numbers.get(thing)), x + radius, y - radius);
    }
    context.globalAlpha = 1;
  }

  // at: the place of a time on a canvas.
  drawTicks(context, at) {
    context.fillStyle = MARK;
    for (const mark of this.list) {
      context.fillRect(at(this.scene.things[mark.index].time) - 1, 0, 2, context.canvas.height);
    }
  }
}
