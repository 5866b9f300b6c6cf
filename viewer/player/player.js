// The page: what the controls do, the two views of the maps, and the loop that draws frames.

const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5];
const SURROUND = 44; // px shown around the playfield
const LABEL = 22; // px above it, for the map's name
const GHOST = 0.3; // opacity of the map that lies under the other one
const KEYS = [
  [["Space"], "play, pause"],
  [["\u2190", "\u2192"], "1 s back, on"],
  [["Shift", "\u2190 \u2192"], "object by object"],
  [["Home", "End"], "beginning, end"],
  [["+", "\u2212"], "speed"],
  [["0"], "normal speed"],
  [["V"], "view"],
  [["M"], "mute"],
  [["H"], "hitsounds"],
];
const VIEWS = { side: "Side by side", over: "Overlaid", before: "Before", after: "After" };

class Player {
  constructor(data) {
    this.data = data;
    this.scenes = data.maps.map((map) => new Scene(map, data.look));
    this.view = this.scenes.length > 1 ? "side" : "before";
    this.loud = 0.6;
    this.find = (id) => document.getElementById(id);
    this.context = this.find("field").getContext("2d");
    this.painter = new Painter(this.context);
    this.sounds = new HitSounds(data.sounds);
    this.marks = new Marks(data.marks, this.scenes.at(-1), (time) => this.seek(time));
    const things = this.scenes.flatMap((scene) => scene.things);
    const first = Math.min(...data.maps.map((map) => map.objects[0].time - map.preempt));
    const last = things.reduce((end, thing) => Math.max(end, thing.end), 0);
    this.clock = new Clock(this.song(), Math.min(0, first - 500), last + 1500);
    this.clock.seek(first + 0.6 * data.maps[0].preempt);
    this.fillPage();
    this.listen();
    requestAnimationFrame(() => this.tick());
  }

  // The draw lists at a time: of each map its items from the bottom to the top. `draw` draws these.
  stateAt(time) {
    return this.scenes.map((scene) => ({ name: scene.map.name, items: scene.frame(time) }));
  }

  song() {
    if (!this.data.audio) return null;
    const { type, base64 } = this.data.audio;
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new Audio(URL.createObjectURL(new Blob([bytes], { type })));
  }

  fillPage() {
    const [map] = this.data.maps;
    this.find("title").textContent = map.title;
    this.find("names").textContent = this.data.maps.map((m) => m.version).join(" \u2192 ");
    for (const speed of SPEEDS) this.find("speed").add(new Option(`${speed}\u00d7`, speed));
    this.find("speed").value = 1;
    if (this.scenes.length > 1) {
      for (const [view, text] of Object.entries(VIEWS)) {
        const button = document.createElement("button");
        button.textContent = text;
        button.dataset.view = view;
        this.find("views").append(button);
      }
    }
    this.find("time").min = this.clock.start;
    this.find("time").max = this.clock.end;
    this.find("hits").checked = !this.data.audio;
    this.find("note").textContent = this.data.note;
    this.fillKeys();
    this.marks.fill(this.find("marks"));
    this.showView(this.view);
    this.setVolume();
  }

  fillKeys() {
    for (const [keys, what] of KEYS) {
      if (what === "view" && this.scenes.length === 1) continue;
      const row = document.createElement("li");
      for (const key of keys) {
        const cap = document.createElement("kbd");
        cap.textContent = key;
        row.append(cap, " ");
      }
      row.append(what);
      this.find("keys").append(row);
    }
  }

  listen() {
    const { find } = this;
    find("play").addEventListener("click", () => this.toggle());
    find("stage").addEventListener("click", () => this.toggle());
    find("time").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    find("speed").addEventListener("change", (event) => this.clock.setRate(Number(event.target.value)));
    find("hits").addEventListener("change", () => this.wakeSounds());
    find("volume").addEventListener("input", () => this.setVolume());
    find("views").addEventListener("click", (event) => {
      if (event.target.dataset.view) this.showView(event.target.dataset.view);
    });
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(find("stage"));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = event.target.tagName, now = this.clock.now();
    const actions = {
      " ": () => this.toggle(),
      ArrowLeft: () => this.seek(event.shiftKey ? this.neighbour(now, -1) : now - 1000),
      ArrowRight: () => this.seek(event.shiftKey ? this.neighbour(now, 1) : now + 1000),
      ArrowUp: () => this.changeSpeed(1),
      ArrowDown: () => this.changeSpeed(-1),
      "+": () => this.changeSpeed(1),
      "=": () => this.changeSpeed(1), // the same key without Shift
      "-": () => this.changeSpeed(-1),
      0: () => this.setSpeed(1),
      Home: () => this.seek(this.clock.start),
      End: () => this.seek(this.clock.end),
      v: () => this.nextView(),
      m: () => this.mute(),
      h: () => { this.find("hits").checked = !this.find("hits").checked; this.wakeSounds(); },
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || on === "SELECT" || (event.key === " " && (on === "BUTTON" || on === "INPUT"))) return;
    if (event.target.id === "volume" && event.key.startsWith("Arrow")) return;
    event.preventDefault();
    action();
  }

  // Time of the object before or after `time`.
  neighbour(time, direction) {
    const times = this.scenes[0].things.map((thing) => thing.time);
    if (direction < 0) times.reverse();
    return times.find((t) => (t - time) * direction > 1) ?? time;
  }

  toggle() {
    if (this.clock.playing) this.pause();
    else this.play();
  }

  play() {
    this.wakeSounds();
    this.clock.play();
    this.sounds.seek(this.clock.now());
  }

  pause() {
    this.clock.pause();
  }

  seek(time) {
    this.clock.seek(time);
    this.sounds.seek(this.clock.now());
  }

  wakeSounds() {
    if (this.find("hits").checked) this.sounds.start();
    this.sounds.seek(this.clock.now());
  }

  setVolume() {
    this.volume = Number(this.find("volume").value);
    if (this.clock.audio) this.clock.audio.volume = this.volume;
  }

  changeSpeed(step) {
    const speed = SPEEDS[SPEEDS.indexOf(this.clock.rate) + step];
    if (speed) this.setSpeed(speed);
  }

  setSpeed(speed) {
    this.clock.setRate(speed);
    this.find("speed").value = speed;
  }

  // Silence, or the volume that was there before.
  mute() {
    const volume = this.find("volume"), now = Number(volume.value);
    volume.value = now ? 0 : this.loud;
    this.loud = now || this.loud;
    this.setVolume();
  }

  showView(view) {
    this.view = view;
    for (const button of this.find("views").children) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
  }

  nextView() {
    if (this.scenes.length === 1) return;
    const views = Object.keys(VIEWS);
    this.showView(views[(views.indexOf(this.view) + 1) % views.length]);
  }

  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.find("field"), this.find("density")]) {
      canvas.width = Math.max(Math.round(canvas.clientWidth * ratio), 1);
      canvas.height = Math.max(Math.round(canvas.clientHeight * ratio), 1);
    }
    this.drawDensity();
    this.draw(this.clock.now());
  }

  tick() {
    if (this.clock.playing) {
      this.clock.follow();
      const hits = this.find("hits").checked && this.sounds.context;
      if (hits) this.sounds.schedule(this.clock.now(), this.clock.rate, this.volume);
    }
    this.draw(this.clock.now());
    requestAnimationFrame(() => this.tick());
  }

  // Which maps are drawn in which part of the canvas, as [x, y, width, height] shares of it.
  panes() {
    const { width, height } = this.context.canvas;
    const wide = width > 1.1 * height;
    const halves = wide ? [[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]] : [[0, 0, 1, 0.5], [0, 0.5, 1, 0.5]];
    const whole = [0, 0, 1, 1];
    return {
      side: [[halves[0], [[0, 1]]], [halves[1], [[1, 1]]]],
      over: [[whole, [[0, GHOST], [1, 1]]]],
      before: [[whole, [[0, 1]]]],
      after: [[whole, [[1, 1]]]],
    }[this.view];
  }

  draw(time) {
    const context = this.context, { width, height } = context.canvas;
    context.resetTransform();
    context.clearRect(0, 0, width, height);
    const state = this.stateAt(time);
    for (const [[x, y, w, h], maps] of this.panes()) {
      this.prepare(x * width, y * height, w * width, h * height);
      const names = maps.map(([map]) => state[map].name).filter((name) => name);
      this.drawField(names.reverse().join(" over "));
      for (const [map, opacity] of maps) {
        this.painter.draw(this.scenes[map], state[map].items, opacity);
        if (this.scenes[map] === this.marks.scene) this.marks.drawRings(context, state[map].items);
      }
      context.restore();
    }
    this.showTime(time);
  }

  // From here on the context draws in osu! pixels, in this part of the canvas only.
  prepare(x, y, width, height) {
    const [across, down] = this.data.look.playfield.map((side) => side + 2 * SURROUND);
    const scale = Math.min(width / across, height / (down + LABEL));
    const left = x + (width - scale * across) / 2, top = y + (height - scale * (down + LABEL)) / 2;
    const context = this.context;
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.setTransform(scale, 0, 0, scale, left + scale * SURROUND, top + scale * (SURROUND + LABEL));
  }

  drawField(name) {
    const context = this.context, [width, height] = this.data.look.playfield;
    context.fillStyle = "#181824";
    context.fillRect(0, 0, width, height);
    context.fillStyle = "#232333";
    for (let x = 64; x < width; x += 64) context.fillRect(x - 0.5, 0, 1, height);
    for (let y = 64; y < height; y += 64) context.fillRect(0, y - 0.5, width, 1);
    context.lineWidth = 1;
    context.strokeStyle = "#5a5a72";
    context.strokeRect(0, 0, width, height);
    context.font = "bold 17px system-ui, sans-serif";
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    context.fillStyle = "#c8c8d8";
    context.fillText(name, 0, -SURROUND - 4);
  }

  // Objects a second along the seek bar, kiai and breaks behind them.
  drawDensity() {
    const canvas = this.find("density"), context = canvas.getContext("2d");
    const { start, end } = this.clock, { width, height } = canvas;
    const at = (time) => (time - start) / (end - start) * width;
    const band = ([from, to], fill) => {
      context.fillStyle = fill;
      context.fillRect(at(from), 0, Math.max(at(to) - at(from), 1), height);
    };
    band([start, end], "#1a1a28");
    for (const range of this.data.kiai) band(range, "#4a3a1c");
    for (const range of this.data.breaks) band(range, "#1f3a2c");
    const count = Math.min(width / 6, (end - start) / 1000);
    const bins = new Array(Math.max(Math.floor(count), 1)).fill(0);
    for (const thing of this.scenes[0].things) {
      const bin = Math.floor((thing.time - start) / (end - start) * bins.length);
      bins[Math.min(Math.max(bin, 0), bins.length - 1)] += 1;
    }
    const most = Math.max(...bins);
    context.fillStyle = "#5d8fc4";
    bins.forEach((count, bin) => {
      const tall = count / most * height * 0.85;
      context.fillRect(bin * width / bins.length, height - tall, width / bins.length - 1, tall);
    });
    this.marks.drawTicks(context, at);
  }

  showTime(time) {
    const total = Math.round(Math.abs(time)), two = (n) => String(n).padStart(2, "0");
    const text = `${time < 0 && total ? "-" : ""}${two(Math.floor(total / 60000))}`
      + `:${two(Math.floor(total / 1000) % 60)}:${String(total % 1000).padStart(3, "0")}`;
    if (this.find("clock").textContent !== text) {
      this.find("clock").textContent = text;
      this.find("time").value = time;
      this.find("time").setAttribute("aria-valuetext", text);
    }
    const playing = this.clock.playing;
    if (this.shownPlaying === playing) return;
    this.shownPlaying = playing;
    if (playing) this.find("start").hidden = true;
    this.find("play").textContent = playing ? "\u275a\u275a" : "\u25b6\ufe0e";
    this.find("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  }
}

window.player = new Player(JSON.parse(document.getElementById("data").textContent));
