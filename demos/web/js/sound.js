// Sound of the microphone (which may ask questions), or of what is watched (which may not): PCM16 from an AudioWorklet.

const DRIFT_S = 0.25; // between the samples' count and the clock, before their time is said anew
const WAKE_MS = 2000; // for a sound device to wake; one that is slower is heard when it does

export class Sound {
  constructor(clock, link, onLevel) {
    Object.assign(this, { clock, link, onLevel });
    this.rate_hz = 16000;
    this.context = null;
    this.told_hz = 0; // of input_audio_buffer, as the server knows it
  }

  get on() { return this.context !== null; }

  /** source: a MediaStream, or a media element, whose sound is then played by us. questions: is it a microphone? */
  async start(source, { questions }) {
    this.stop();
    const { context, node } = await this.#graph(source);
    const worklet = new AudioWorkletNode(context, "pcm16", { numberOfOutputs: 0, channelCountMode: "max" });
    Object.assign(this, { context, questions, next_s: -Infinity });
    this.element = source instanceof HTMLMediaElement ? source : null;
    worklet.port.onmessage = ({ data }) => { if (this.context === context) this.#send(data, context.sampleRate); };
    node.connect(worklet);
    await Promise.race([context.resume(), new Promise((done) => setTimeout(done, WAKE_MS))]);
  }

  stop() {
    const context = this.context;
    this.context = null;
    this.onLevel(0);
    if (context && context !== this.shared) context.close();
    else this.node?.disconnect();
  }

  async #graph(source) {
    const made = async (options) => {
      const context = new AudioContext(options);
      await context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
      return context;
    };
    if (source instanceof HTMLMediaElement) { // an element's sound can be taken only once
      this.shared ??= await made({});
      this.node ??= this.shared.createMediaElementSource(source);
      this.node.connect(this.shared.destination);
      return { context: this.shared, node: this.node };
    }
    try {
      const context = await made({ sampleRate: this.rate_hz });
      return { context, node: context.createMediaStreamSource(source) };
    } catch { // some browsers resample no microphone
      const context = await made({});
      return { context, node: context.createMediaStreamSource(source) };
    }
  }

  #send({ pcm, peak }, rate_hz) {
    this.onLevel(peak);
    if (this.element && (this.element.paused || !this.clock.running)) return;
    const length_s = pcm.length / rate_hz;
    const ends_s = this.clock.now();
    if (ends_s < length_s) return; // of before the session
    const anew = Math.abs(ends_s - length_s - this.next_s) > DRIFT_S;
    const pts_s = anew ? ends_s - length_s : this.next_s;
    this.next_s = pts_s + length_s;
    const bytes = new Uint8Array(pcm.buffer);
    if (!this.questions) {
      this.link.sendBytes("anymodal.input.append", { stream: "audio", modality: "audio", pts_s, rate_hz, encoding: "pcm16" },
        "data", bytes);
      return;
    }
    if (this.told_hz !== rate_hz) {
      this.told_hz = rate_hz;
      this.link.send("session.update", { session: { type: "realtime",
        audio: { input: { format: { type: "audio/pcm", rate: rate_hz } } } } });
    }
    this.link.sendBytes("input_audio_buffer.append", anew ? { pts_s } : {}, "audio", bytes);
  }
}
