// Hitsounds of our own, synthesised: a click, and on top of it whistle (2), finish (4), clap (8).

const LOOK_AHEAD = 120; // ms; sounds are scheduled before they are due

class HitSounds {
  // events: [[time in ms, bits], ...] by time.
  constructor(events) {
    this.events = events;
    this.next = 0;
    this.context = null;
  }

  // Browsers allow sound only after a gesture: call this from one.
  start() {
    this.context ??= new (window.AudioContext || window.webkitAudioContext)();
    this.context.resume();
  }

  seek(time) {
    this.next = this.events.findIndex(([due]) => due >= time);
    if (this.next === -1) this.next = this.events.length;
  }

  schedule(time, rate, volume) {
    for (; this.next < this.events.length; this.next++) {
      const [due, bits] = this.events[this.next];
      if (due > time + LOOK_AHEAD * rate) return;
      if (volume > 0) this.play(bits, Math.max(due - time, 0) / rate / 1000, volume);
    }
  }

  play(bits, delay, volume) {
    const at = this.context.currentTime + delay;
    this.noise(at, 0.03, "bandpass", 2600, 0.5 * volume);
    this.tone(at, 0.05, 420, 0.35 * volume);
    if (bits & 2) {
      this.tone(at, 0.16, 1760, 0.12 * volume);
      this.tone(at, 0.16, 2640, 0.06 * volume);
    }
    if (bits & 4) this.noise(at, 0.7, "highpass", 5000, 0.3 * volume);
    if (bits & 8) {
      for (const late of [0, 0.012, 0.024]) {
        this.noise(at + late, 0.07, "bandpass", 1300, 0.6 * volume);
      }
    }
  }

  // A gain that falls to silence within `length` seconds.
  envelope(at, length, level) {
    const gain = this.context.createGain();
    gain.gain.setValueAtTime(level, at);
    gain.gain.exponentialRampToValueAtTime(0.0001, at + length);
    gain.connect(this.context.destination);
    return gain;
  }

  tone(at, length, frequency, level) {
    const source = this.context.createOscillator();
    source.frequency.value = frequency;
    source.connect(this.envelope(at, length, level));
    source.start(at);
    source.stop(at + length);
  }

  noise(at, length, type, frequency, level) {
    const source = this.context.createBufferSource(), filter = this.context.createBiquadFilter();
    source.buffer = this.noiseBuffer();
    filter.type = type;
    filter.frequency.value = frequency;
    source.connect(filter);
    filter.connect(this.envelope(at, length, level));
    source.start(at);
    source.stop(at + length);
  }

  noiseBuffer() {
    if (!this.buffer) {
      this.buffer = this.context.createBuffer(1, this.context.sampleRate, this.context.sampleRate);
      const samples = this.buffer.getChannelData(0);
      for (let i = 0; i < samples.length; i++) samples[i] = 2 * Math.random() - 1;
    }
    return this.buffer;
  }
}
