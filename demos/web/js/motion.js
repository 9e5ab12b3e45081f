// The phone's motion sensors as the session's IMU: readings at the device's own times -> rows on the grid asked for.

const radians = (degrees) => (degrees ?? NaN) * Math.PI / 180; // null: there is no such sensor
const BATCH_S = 0.2, LATE_MS = 2000;
const SILENT_MS = 3000; // without an event: there are no sensors

/** What DeviceMotion calls the axes of the bundle; alpha, beta and gamma are rates about x, y and z in degrees. */
const READ = {
  accel_x_m_s2: (e) => e.accelerationIncludingGravity?.x, accel_y_m_s2: (e) => e.accelerationIncludingGravity?.y,
  accel_z_m_s2: (e) => e.accelerationIncludingGravity?.z, gyro_x_rad_s: (e) => radians(e.rotationRate?.alpha),
  gyro_y_rad_s: (e) => radians(e.rotationRate?.beta), gyro_z_rad_s: (e) => radians(e.rotationRate?.gamma),
};

export class Motion {
  constructor(clock, link) {
    Object.assign(this, { clock, link });
    this.wants = { rate_hz: 50, axes: Object.keys(READ) };
    this.on = false;
    this.hear = (event) => this.#hear(event);
  }

  /** Throws a DOMException where it may not, or where there are no sensors. */
  async start() {
    if (typeof DeviceMotionEvent === "undefined") throw new DOMException("", "NotSupportedError");
    if (DeviceMotionEvent.requestPermission && (await DeviceMotionEvent.requestPermission()) !== "granted") {
      throw new DOMException("", "NotAllowedError");
    }
    this.before = null;
    this.rows = [];
    this.on = true;
    await new Promise((done, fail) => {
      this.first = done;
      this.timer = setTimeout(() => { this.stop(); fail(new DOMException("", "NotFoundError")); }, SILENT_MS);
      addEventListener("devicemotion", this.hear);
    });
  }

  stop() {
    clearTimeout(this.timer);
    removeEventListener("devicemotion", this.hear);
    if (this.on) this.#flush();
    this.on = false;
  }

  #hear(event) {
    const axes = this.wants.axes ?? Object.keys(READ);
    const row = axes.map((axis) => READ[axis]?.(event) ?? NaN);
    if (row.every((value) => !Number.isFinite(value))) return; // a desktop's empty event
    clearTimeout(this.timer);
    this.first();
    for (let i = 0; i < row.length; i += 1) if (!Number.isFinite(row[i])) row[i] = 0;
    const now_ms = performance.now(), at_ms = event.timeStamp; // a page that is busy hears of it late
    this.#resample(this.clock.now(Math.abs(now_ms - at_ms) < LATE_MS ? at_ms : now_ms), row);
  }

  /** Rows on the grid k / rate_hz up to now, linear between readings. */
  #resample(now_s, row) {
    const { rate_hz } = this.wants;
    const before = this.before;
    this.before = { t_s: now_s, row };
    if (!before || now_s - before.t_s > 0.5 || now_s <= before.t_s) {
      this.#flush();
      return;
    }
    for (let k = Math.floor(before.t_s * rate_hz) + 1; k / rate_hz <= now_s; k += 1) {
      const share = (k / rate_hz - before.t_s) / (now_s - before.t_s);
      if (!this.rows.length) this.from = k;
      this.rows.push(before.row.map((value, i) => value + share * (row[i] - value)));
    }
    if (this.rows.length >= BATCH_S * rate_hz) this.#flush();
  }

  #flush() {
    if (!this.rows.length) return;
    const width = this.rows[0].length;
    const data = new Float32Array(this.rows.flat());
    this.link.sendBytes("anymodal.input.append", { stream: "imu", modality: "imu", pts_s: this.from / this.wants.rate_hz,
      rate_hz: this.wants.rate_hz, encoding: "float32", shape: [this.rows.length, width] }, "data",
    new Uint8Array(data.buffer));
    this.rows = [];
  }
}
