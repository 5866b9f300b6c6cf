// The time of the player in ms: it runs by itself and is held to the song where there is one.

const DRIFT = 60; // ms between clock and song that are jumped over; less is caught up smoothly

class Clock {
  // audio: an <audio> element or null.
  constructor(audio, start, end) {
    Object.assign(this, { audio, start, end, rate: 1, playing: false, refused: false });
    this.rebase(start);
  }

  now() {
    const passed = this.playing ? (performance.now() - this.since) * this.rate : 0;
    return Math.min(this.base + passed, this.end);
  }

  // Take `time` as the present one, without touching the song.
  rebase(time) {
    this.base = Math.min(Math.max(time, this.start), this.end);
    this.since = performance.now();
  }

  seek(time) {
    this.rebase(time);
    if (this.audio) this.audio.currentTime = Math.max(this.base, 0) / 1000;
  }

  play() {
    if (this.now() >= this.end) this.seek(this.start);
    this.rebase(this.now());
    this.playing = true;
    this.refused = false;
    this.follow();
  }

  pause() {
    this.rebase(this.now());
    this.playing = false;
    this.audio?.pause();
  }

  setRate(rate) {
    this.rebase(this.now());
    this.rate = rate;
    if (this.audio) this.audio.playbackRate = rate;
  }

  // Once a frame while playing: start the song when its time has come, and keep to it.
  follow() {
    const time = this.now(), audio = this.audio;
    if (time >= this.end) this.pause();
    if (!audio || !this.playing || this.refused || audio.ended) return;
    if (time < 0 || !(time / 1000 < audio.duration)) return;
    if (audio.paused) {
      audio.currentTime = time / 1000;
      // Not allowed or not playable: the clock goes on in silence.
      audio.play().catch(() => { this.refused = true; });
      return;
    }
    if (audio.seeking || audio.readyState < 3) return;
    const drift = audio.currentTime * 1000 - time;
    this.rebase(time + (Math.abs(drift) > DRIFT ? drift : 0.05 * drift));
  }
}
