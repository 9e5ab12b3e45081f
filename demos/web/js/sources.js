// The buttons under the picture: one source of pictures, one of sound, and the motion sensors, each on or off.

import { $, notice, unsay } from "./dom.js";
import { ask, why } from "./capture.js";

export class Sources {
  constructor({ link, clock, pictures, sound, motion }) {
    Object.assign(this, { link, clock, pictures, sound, motion });
    this.video = $("video");
    this.picture = null; // {kind, stream or url}
    this.hearing = null; // the same of sound
    this.buttons = { camera: $("camera"), share: $("share"), open: $("open"), microphone: $("microphone"), motion: $("motion") };
    $("camera").addEventListener("click", () => this.#toggle("camera", () => this.#look("camera")));
    $("share").addEventListener("click", () => this.#toggle("share", () => this.#look("share")));
    $("microphone").addEventListener("click", () => this.#toggle("microphone", () => this.#listen()));
    $("motion").addEventListener("click", () => this.#toggle("motion", () => motion.start()));
    $("open").addEventListener("click", () => (this.#isOn("open") ? this.#off("open") : $("file").click()));
    $("file").addEventListener("change", () => {
      const [file] = $("file").files;
      $("file").value = "";
      if (file) this.#play(file);
    });
    this.video.addEventListener("ended", () => { if (this.picture?.kind === "open") this.#off("open"); });
  }

  /** A new session: what is on goes on from its time 0. */
  again() {
    if (this.picture) this.pictures.start();
    this.sound.next_s = -Infinity;
    this.sound.told_hz = 0;
    this.motion.before = null;
    this.motion.rows = [];
  }

  get any() { return Boolean(this.picture || this.hearing || this.motion.on); }

  #isOn(kind) { return this.buttons[kind].getAttribute("aria-pressed") === "true"; }

  async #toggle(kind, start) {
    unsay(kind);
    if (this.#isOn(kind)) {
      this.#off(kind);
      return;
    }
    const button = this.buttons[kind];
    button.disabled = true;
    try {
      await start();
      this.#mark(kind, true);
    } catch (error) {
      notice(kind, ...why(kind, error), { kind: error?.name === "NotAllowedError" ? "bad" : "warn" });
    } finally {
      button.disabled = false;
    }
  }

  #mark(kind, on) {
    this.buttons[kind].setAttribute("aria-pressed", String(on));
    $("idle").hidden = Boolean(this.picture || this.hearing || this.#isOn("motion"));
    if (this.clock.running) { // something was watched before
      $("idle-title").textContent = "Nothing is being watched now.";
      $("idle-hint").textContent = "What was seen and heard can be asked about as before. Turn on a source to go on.";
    }
    $("screen").classList.toggle("sound", !this.picture);
    const parts = [];
    if (this.picture?.name) parts.push(this.picture.name);
    if (this.hearing?.kind === "microphone" && this.picture?.kind === "open") parts.push("sound comes from the microphone");
    if (!this.picture && this.hearing) parts.push("listening, without pictures");
    $("source-note").textContent = parts.join(" · ");
  }

  async #look(kind) {
    const stream = await ask(kind);
    this.#endPicture();
    this.picture = { kind, stream };
    stream.getVideoTracks()[0].addEventListener("ended", () => this.#off(kind)); // unplugged, or sharing was stopped
    this.video.controls = false;
    this.video.muted = true;
    this.video.srcObject = stream;
    this.video.play().catch(() => {}); // begins with the first picture, which a screen at rest may give late: not waited for
    this.pictures.start();
    if (stream.getAudioTracks().length && !this.hearing) {
      this.hearing = { kind };
      await this.sound.start(new MediaStream(stream.getAudioTracks()), { questions: false });
    }
  }

  async #listen() {
    const stream = await ask("microphone");
    this.#endHearing();
    stream.getAudioTracks()[0].addEventListener("ended", () => this.#off("microphone"));
    await this.sound.start(stream, { questions: true });
    this.hearing = { kind: "microphone", stream };
  }

  async #play(file) {
    unsay("open");
    this.#endPicture();
    const url = URL.createObjectURL(file);
    this.picture = { kind: "open", url, name: file.name };
    this.video.srcObject = null;
    this.video.src = url;
    this.video.muted = false;
    this.video.controls = true;
    try {
      if (this.hearing?.kind !== "microphone") { // its first sound is not to be missed
        await this.sound.start(this.video, { questions: false });
        this.hearing = { kind: "open" };
      }
      await this.video.play();
    } catch (error) {
      this.#off("open");
      notice("open", `${file.name} cannot be played`, `The browser knows no way to play it (${error.message}). Convert it to MP4 or WebM.`, { kind: "warn" });
      return;
    }
    this.pictures.start();
    this.#mark("open", true);
  }

  #off(kind) {
    if (this.picture?.kind === kind) this.#endPicture();
    if (this.hearing?.kind === kind) this.#endHearing();
    if (kind === "motion") this.motion.stop();
    this.#mark(kind, false);
    if (!this.any && this.clock.running) this.link.send("anymodal.input.flush");
  }

  #endPicture() {
    const old = this.picture;
    if (!old) return;
    this.picture = null;
    this.pictures.stop();
    old.stream?.getTracks().forEach((track) => track.stop());
    this.video.pause();
    this.video.srcObject = null;
    if (old.url) {
      this.video.removeAttribute("src");
      this.video.load();
      URL.revokeObjectURL(old.url);
    }
    this.video.controls = false;
    if (this.hearing?.kind === old.kind) this.#endHearing();
    this.#mark(old.kind, false);
  }

  #endHearing() {
    const old = this.hearing;
    if (!old) return;
    this.hearing = null;
    this.sound.stop();
    old.stream?.getTracks().forEach((track) => track.stop());
    this.#mark(old.kind, this.picture?.kind === old.kind);
  }
}
