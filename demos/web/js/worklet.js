// In the sound's own thread: mono float -> PCM16, in pieces of a tenth of a second.

class Pcm16 extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.peak = 0;
  }

  process([channels]) {
    const count = channels[0]?.length ?? 0;
    for (let i = 0; i < count; i += 1) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const value = Math.max(-1, Math.min(1, sum / channels.length));
      this.peak = Math.max(this.peak, Math.abs(value));
      this.piece[this.filled] = Math.round(value * 32767);
      this.filled += 1;
      if (this.filled === this.piece.length) {
        this.port.postMessage({ pcm: this.piece, peak: this.peak }, [this.piece.buffer]);
        this.piece = new Int16Array(Math.round(sampleRate / 10));
        this.filled = this.peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("pcm16", Pcm16);
