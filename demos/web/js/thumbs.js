// Pictures of moments, kept in the browser alone: all of the last minutes, then one in two, and so on, never more than MOST.

const MOST = 900;

export class Thumbs {
  #times = []; // ascending
  #urls = new Map(); // time -> blob URL

  get count() { return this.#times.length; }

  keep(time_s, blob) {
    if (this.#times.length && time_s <= this.#times.at(-1)) return;
    this.#times.push(time_s);
    this.#urls.set(time_s, URL.createObjectURL(blob));
    if (this.#times.length > MOST) this.#thin();
  }

  /** The picture that was on show at a time: {time_s, url}, or null where there is none within two seconds before. */
  at(time_s) {
    const index = this.#index(time_s);
    const found = this.#times[Math.max(0, index)];
    if (found === undefined || Math.abs(found - time_s) > 2) return null;
    return { time_s: found, url: this.#urls.get(found) };
  }

  /** The picture `step` pictures away. */
  beside(time_s, step) {
    const index = Math.min(this.#times.length - 1, Math.max(0, this.#index(time_s) + step));
    return this.#times[index] ?? time_s;
  }

  clear() {
    for (const url of this.#urls.values()) URL.revokeObjectURL(url);
    this.#times = [];
    this.#urls.clear();
  }

  #index(time_s) {
    let low = 0, high = this.#times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#times[middle] <= time_s + 1e-6) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** The older half loses every second picture. */
  #thin() {
    const half = this.#times.length >> 1;
    this.#times = this.#times.filter((time_s, i) => {
      if (i >= half || i % 2 === 0) return true;
      URL.revokeObjectURL(this.#urls.get(time_s));
      this.#urls.delete(time_s);
      return false;
    });
  }
}
