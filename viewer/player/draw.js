// Draws the items of a Scene on a canvas whose transform is in osu! pixels: nothing but the items.

const WHITE = "#fff", FOLLOW = "255, 214, 150";
const ARROW = [[0.5, 0], [0, 0.55], [-0.28, 0.55], [0.22, 0], [-0.28, -0.55], [0, -0.55]];

function shade(rgb, light, white = 0) {
  return `rgb(${rgb.map((c) => Math.round(light * c * (1 - white) + 255 * white)).join(",")})`;
}

function disc(context, x, y, radius, fill) {
  context.beginPath();
  context.arc(x, y, Math.max(radius, 0), 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
}

// A ring with its outer edge at `radius`.
function ring(context, x, y, radius, width, stroke) {
  context.beginPath();
  context.arc(x, y, Math.max(radius - width / 2, 0), 0, 2 * Math.PI);
  context.lineWidth = width;
  context.strokeStyle = stroke;
  context.stroke();
}

function polygon(context, x, y, scale, angle, corners, fill) {
  const [c, s] = [Math.cos(angle) * scale, Math.sin(angle) * scale];
  context.beginPath();
  corners.forEach(([u, v], i) => {
    const place = [x + c * u - s * v, y + s * u + c * v];
    if (i) context.lineTo(...place);
    else context.moveTo(...place);
  });
  context.closePath();
  context.fillStyle = fill;
  context.fill();
}

class Painter {
  constructor(context) {
    this.context = context;
    this.layer = document.createElement("canvas").getContext("2d");
  }

  // Draw items; `opacity` is below 1 for a map that is laid under another one.
  draw(scene, items, opacity = 1) {
    for (const item of items) {
      const rgb = scene.map.colours[item.colour];
      this.context.globalAlpha = item.alpha * opacity;
      this[item.kind](item, rgb, scene);
    }
    this.context.globalAlpha = 1;
  }

  body(item, rgb, scene) {
    const line = scene.things[item.thing].line;
    if (this.context.globalAlpha === 1) {
      this.strokeBody(this.context, line, item.radius, rgb);
      return;
    }
    // Border, body and core overlap: drawn opaque on a layer, then faded as one.
    const { canvas } = this.context, matrix = this.context.getTransform(), layer = this.layer;
    if (layer.canvas.width !== canvas.width || layer.canvas.height !== canvas.height) {
      layer.canvas.width = canvas.width;
      layer.canvas.height = canvas.height;
    }
    layer.resetTransform();
    layer.clearRect(0, 0, canvas.width, canvas.height);
    layer.setTransform(matrix);
    this.strokeBody(layer, line, item.radius, rgb);
    this.context.resetTransform();
    this.context.drawImage(layer.canvas, 0, 0);
    this.context.setTransform(matrix);
  }

  strokeBody(context, line, radius, rgb) {
    context.lineCap = context.lineJoin = "round";
    const shades = [[1, shade(rgb, 0.8, 0.35)], [0.88, shade(rgb, 0.28)], [0.62, shade(rgb, 0.32)],
      [0.36, shade(rgb, 0.36)]];
    for (const [share, stroke] of shades) {
      context.beginPath();
      context.moveTo(...line[0]);
      for (const point of line.slice(1)) context.lineTo(...point);
      context.lineWidth = 2 * share * radius;
      context.strokeStyle = stroke;
      context.stroke();
    }
  }

  circle({ x, y, radius, number }, rgb) {
    const context = this.context;
    disc(context, x, y, 0.89 * radius, shade(rgb, 0.95));
    disc(context, x, y, 0.64 * radius, shade(rgb, 0.8));
    ring(context, x, y, radius, 0.12 * radius, WHITE);
    const size = radius * (number < 100 ? 1.1 : 0.75);
    context.font = `bold ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillStyle = WHITE;
    context.fillText(String(number), x, y + 0.36 * size);
  }

  approach({ x, y, radius }, rgb) {
    ring(this.context, x, y, radius, 4, shade(rgb, 0.9, 0.2));
  }

  arrow({ x, y, radius, angle }) {
    polygon(this.context, x, y, 0.8 * radius, angle, ARROW, WHITE);
  }

  ball({ x, y, radius }, rgb) {
    disc(this.context, x, y, 0.91 * radius, shade(rgb, 0.75, 0.25));
    disc(this.context, x, y, 0.45 * radius, shade(rgb, 1, 0.5));
    ring(this.context, x, y, radius, 0.1 * radius, WHITE);
  }

  follow({ x, y, radius }) {
    disc(this.context, x, y, radius, `rgba(${FOLLOW}, 0.08)`);
    ring(this.context, x, y, radius, 4, `rgb(${FOLLOW})`);
  }

  point({ x, y, radius, angle }) {
    const dash = [[-1.6, -0.5], [1.6, -0.5], [1.6, 0.5], [-1.6, 0.5]];
    polygon(this.context, x, y, radius, angle, dash, "#e4e4ee");
  }

  spinner({ x, y, radius, angle }, rgb, scene) {
    const [outer, inner] = scene.look.spinnerRadii;
    ring(this.context, x, y, outer, 3, shade(rgb, 0.5));
    const spoke = [[0.25 * outer, -5], [0.85 * outer, -5], [0.85 * outer, 5], [0.25 * outer, 5]];
    for (const turn of [angle, angle + Math.PI]) {
      polygon(this.context, x, y, 1, turn, spoke, shade(rgb, 0.7));
    }
    ring(this.context, x, y, radius, 5, shade(rgb, 0.9, 0.2));
    disc(this.context, x, y, inner, WHITE);
  }
}
