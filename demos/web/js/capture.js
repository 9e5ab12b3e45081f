// Pictures: a camera, the screen or a file plays in the page's <video>; frames of it leave at the rate that the server
// asks for, on the grid of the session's time, scaled to what it will look at.

const SMALL_PX = 192 * 192; // pictures up to here leave without loss
const QUALITY = 0.92;
const THUMB_PX = 160, THUMB_S = 0.5; // pictures of moments: their longer side, and how far apart they are
const MOST_AT_ONCE = 3; // frames that are being encoded

/** Media time of the session: it begins with the first thing that is captured. */
export class MediaClock {
  #began_ms = null;

  get running() { return this.#began_ms !== null; }

  /** Seconds, from 0. */
  now(at_ms = performance.now()) {
    if (this.#began_ms === null) this.#began_ms = at_ms;
    return (at_ms - this.#began_ms) / 1000;
  }

  reset() { this.#began_ms = null; }
}

export class Pictures {
  /** keepThumb(pts_s, blob); stats(sent, dropped, rate_hz). */
  constructor(video, clock, link, { keepThumb, stats }) {
    Object.assign(this, { video, clock, link, keepThumb, stats });
    this.canvas = document.createElement("canvas");
    this.thumb = document.createElement("canvas");
    this.wants = { rate_hz: 4, size_px: 224 };
    this.sent = this.dropped = 0;
    this.recent = []; // times of the latest frames
    this.timer = this.encoding = 0;
    this.line = Promise.resolve(); // frames leave in order
  }

  start() {
    this.stop();
    this.thumbed_s = -Infinity;
    this.next = Math.ceil(this.clock.now() * this.wants.rate_hz);
    this.#schedule();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.recent = [];
    this.#tell();
  }

  #schedule() {
    const due_ms = 1000 * (this.next / this.wants.rate_hz - this.clock.now());
    this.timer = setTimeout(() => this.#tick(), Math.max(0, due_ms));
  }

  #tick() {
    const { rate_hz } = this.wants;
    const late = Math.floor(this.clock.now() * rate_hz - this.next);
    if (late > 0) { // the page was too busy, or hidden
      this.dropped += late;
      this.next += late;
    }
    const pts_s = this.next / rate_hz;
    this.next += 1;
    this.#schedule();
    const { video } = this;
    if (video.readyState < 2 || !video.videoWidth || video.paused || video.ended) return;
    if (this.encoding >= MOST_AT_ONCE || this.link.crowded) {
      this.dropped += 1;
      this.#tell();
      return;
    }
    this.#frame(pts_s);
  }

  #frame(pts_s) {
    const { videoWidth: width, videoHeight: height } = this.video;
    const size = this.wants.size_px ?? Math.min(width, height);
    draw(this.canvas, this.video, width, height, Math.min(1, size / Math.min(width, height))); // no side is smaller than wanted
    const small = this.canvas.width * this.canvas.height <= SMALL_PX;
    const frame = encode(this.canvas, small ? "image/png" : "image/jpeg");
    if (pts_s - this.thumbed_s >= THUMB_S) {
      this.thumbed_s = pts_s;
      draw(this.thumb, this.video, width, height, Math.min(1, THUMB_PX / Math.max(width, height)));
      encode(this.thumb, "image/jpeg").then((blob) => this.keepThumb(pts_s, blob), () => {});
    }
    this.encoding += 1;
    this.line = this.line.then(() => this.#send(frame, pts_s)).catch(() => { this.dropped += 1; }).finally(() => {
      this.encoding -= 1;
      this.#tell();
    });
  }

  async #send(frame, pts_s) {
    const blob = await frame;
    this.link.sendBytes("anymodal.input.append", { stream: "video", modality: "video", pts_s, rate_hz: this.wants.rate_hz,
      encoding: blob.type.split("/")[1] }, "data", new Uint8Array(await blob.arrayBuffer()));
    this.sent += 1;
    this.recent.push(pts_s);
  }

  #tell() {
    const since = this.clock.running ? this.clock.now() - 3 : 0;
    this.recent = this.recent.filter((t) => t > since);
    const span_s = this.recent.length > 1 ? this.recent.at(-1) - this.recent[0] : 0;
    this.stats(this.sent, this.dropped, span_s ? (this.recent.length - 1) / span_s : 0);
  }
}

function draw(canvas, video, width, height, scale) {
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "high";
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
}

function encode(canvas, type) {
  return new Promise((done, fail) => {
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the picture cannot be encoded"))), type, QUALITY);
  });
}

// -- what can be captured ---------------------------------------------------------------------------------------------

/** A MediaStream of the camera or of the screen. Throws what `why` explains. */
export async function ask(kind) {
  const devices = navigator.mediaDevices;
  if (!devices?.getUserMedia) throw new DOMException("", "SecurityError");
  if (kind === "camera") return devices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  if (kind === "microphone") {
    return devices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  }
  if (!devices.getDisplayMedia) throw new DOMException("", "NotSupportedError");
  return devices.getDisplayMedia({ video: { frameRate: { ideal: 15 } }, audio: true });
}

const NAMES = { camera: "camera", microphone: "microphone", share: "screen", motion: "motion sensors" };

/** What went wrong with a source, in words: [title, what to do]. */
export function why(kind, error) {
  const name = NAMES[kind];
  switch (error?.name) {
    case "NotAllowedError":
      return kind === "share" ? ["Sharing was refused", "No screen is shared. Press Screen to choose one."]
        : [`No permission for the ${name}`, `The browser refused it. Allow the ${name} for this page (beside the address), then press the button again.`];
    case "NotFoundError":
    case "OverconstrainedError":
      return kind === "motion" ? ["This device has no motion sensors", "Phones and tablets have. Open this page there."]
        : [`There is no ${name}`, "Connect one and try again, or open a file."];
    case "NotReadableError":
      return [`The ${name} cannot be read`, "Another program may be using it. Close that, then try again."];
    case "NotSupportedError":
      return [`This browser offers no ${name}`, "Use another source, or a newer browser."];
    case "SecurityError":
      return [`No ${name} over this connection`, "Browsers give cameras and sensors only to https pages, or to localhost."];
    default:
      return [`The ${name} failed`, error?.message || String(error)];
  }
}
