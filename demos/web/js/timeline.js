// The past at a glance: a picture of each window, what was heard and felt in it, what rules saw, and where answers stand.

import { $, clock, make, span } from "./dom.js";

const PX_S = 52; // of a second of media time
const KEPT_S = 900; // older marks leave the page
const RULER_S = 5;
const QUIET = new Set(["silence", "device still"]); // nothing to tell
const LANES = ["ruler", "video", "audio", "imu", "rule", "answer"];

export class Timeline {
  /** show(time_s, words): open a moment. */
  constructor(box, follow, thumbs, show) {
    Object.assign(this, { box, follow, thumbs, show });
    this.clear();
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("pointerdown", () => { this.touched = true; });
    box.addEventListener("scroll", () => {
      if (this.touched && box.scrollLeft + box.clientWidth < box.scrollWidth - 40) follow.checked = false;
      this.touched = false;
    });
    follow.addEventListener("change", () => this.#scroll());
  }

  clear() {
    this.track = make("div", { className: "track" });
    this.lanes = Object.fromEntries(LANES.map((name) => [name, make("div", { className: `lane ${name}` })]));
    this.track.append(...Object.values(this.lanes));
    this.box.replaceChildren(this.track);
    this.end_s = this.from_s = this.ruled_s = 0;
    this.going = {}; // modality -> the mark that goes on
  }

  /** An `anymodal.window` event. */
  window(event) {
    const { start_s, end_s } = event;
    const drops = Object.values(event.dropped ?? {}).reduce((sum, count) => sum + count, 0);
    const says = event.says ?? [];
    const seen = says.filter((hit) => hit.modality === "video").map((hit) => hit.text);
    const words = [span(start_s, end_s), ...seen, ...says.filter((hit) => hit.modality !== "video").map((hit) => hit.text),
      event.gap && `gap: ${event.gap}`, drops && `${drops} dropped`].filter(Boolean).join(", ");
    const picture = make("button", { type: "button", className: "picture", tabIndex: -1, title: words,
      onclick: () => this.show(start_s, words) });
    picture.setAttribute("aria-label", words);
    picture.dataset.at = start_s;
    const thumb = event.streams.includes("video") ? this.thumbs.at((start_s + end_s) / 2) : null;
    if (thumb) picture.append(make("img", { src: thumb.url, alt: "" }));
    if (drops) { picture.classList.add("drops"); picture.dataset.drops = `−${drops}`; }
    if (event.gap) { picture.classList.add("gap"); picture.dataset.drops = "gap"; }
    this.#put(this.lanes.video, picture, start_s, end_s, 2);
    for (const modality of ["audio", "imu"]) this.#said(modality, says.find((hit) => hit.modality === modality), event);
    this.end_s = Math.max(this.end_s, end_s);
    this.#rule();
    this.#scroll();
    this.#prune();
  }

  rule(event) {
    this.#mark("rule", event.text, event.t_s, event.t_s + 2.5, `${clock(event.t_s)}: ${event.text}`, 0);
  }

  answer(question, time_s, words) {
    this.#mark("answer", question, time_s, time_s + 2.5, `asked as of ${clock(time_s)}: ${words}`, 0);
  }

  jump(time_s) {
    this.follow.checked = false;
    this.box.scrollTo({ left: this.#x(time_s) - this.box.clientWidth / 2, behavior: "smooth" });
  }

  /** What goes on from window to window is one mark. */
  #said(modality, hit, { start_s, end_s }) {
    const before = this.going[modality];
    const name = hit?.text.replace(/ (starts|goes on)$/, "").replace(/^device /, "");
    if (!hit || QUIET.has(hit.text)) {
      this.going[modality] = null;
      return;
    }
    if (before && before.name === name && before.end_s >= start_s - 1e-6 && !hit.text.endsWith(" starts")) {
      before.end_s = end_s;
      before.mark.style.width = `${(end_s - before.start_s) * PX_S - 3}px`;
      return;
    }
    const mark = this.#mark(modality, name, start_s, end_s, `${span(start_s, end_s)}: ${hit.text}`, -1);
    this.going[modality] = { name, mark, start_s, end_s };
  }

  #mark(lane, text, start_s, end_s, words, tabIndex) {
    const mark = make("button", { type: "button", className: `mark ${lane}`, title: words, tabIndex,
      onclick: () => this.show(start_s, words) }, text);
    mark.setAttribute("aria-label", words);
    mark.dataset.at = start_s;
    this.#put(this.lanes[lane], mark, start_s, end_s, 3);
    this.end_s = Math.max(this.end_s, start_s);
    return mark;
  }

  #put(lane, element, start_s, end_s, gap_px) {
    element.style.left = `${this.#x(start_s)}px`;
    element.style.width = `${(end_s - start_s) * PX_S - gap_px}px`;
    lane.append(element);
  }

  #x(time_s) { return (time_s - this.from_s) * PX_S; }

  #rule() {
    for (; this.ruled_s <= this.end_s; this.ruled_s += RULER_S) {
      const tick = make("span", {}, clock(this.ruled_s, 0));
      tick.dataset.at = this.ruled_s;
      tick.style.left = `${this.#x(this.ruled_s)}px`;
      this.lanes.ruler.append(tick);
    }
    this.track.style.width = `${this.#x(this.end_s) + 60}px`;
  }

  #scroll() {
    if (this.follow.checked) this.box.scrollLeft = this.box.scrollWidth;
  }

  #prune() {
    if (this.end_s - this.from_s < KEPT_S * 1.2) return;
    this.from_s = Math.floor(this.end_s - KEPT_S);
    for (const element of this.track.querySelectorAll("[data-at]")) {
      if (Number(element.dataset.at) < this.from_s) element.remove();
      else element.style.left = `${this.#x(Number(element.dataset.at))}px`;
    }
  }

  #key(event) {
    const pictures = [...this.lanes.video.children];
    const at = pictures.indexOf(document.activeElement);
    const steps = { ArrowLeft: at < 0 ? pictures.length - 1 : at - 1, ArrowRight: at + 1, Home: 0, End: pictures.length - 1 };
    if (!(event.key in steps) || !pictures.length) return;
    event.preventDefault();
    this.follow.checked = event.key === "End";
    pictures[Math.max(0, Math.min(pictures.length - 1, steps[event.key]))].focus();
  }
}

/** The sheet with the picture of a moment, and the way to ask about it. */
export class Moment {
  constructor(thumbs, askAsOf) {
    Object.assign(this, { thumbs, askAsOf, time_s: 0 });
    this.sheet = $("moment");
    $("moment-back").addEventListener("click", () => this.#show(thumbs.beside(this.time_s, -1)));
    $("moment-next").addEventListener("click", () => this.#show(thumbs.beside(this.time_s, 1)));
    $("moment-ask").addEventListener("click", () => { this.sheet.close(); askAsOf(this.time_s); });
    this.sheet.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.#show(thumbs.beside(this.time_s, step));
    });
  }

  open(time_s, words = "") {
    this.#show(time_s, words);
    if (!this.sheet.open) this.sheet.showModal();
  }

  #show(time_s, words = "") {
    const thumb = this.thumbs.at(time_s);
    this.time_s = time_s;
    $("moment-title").textContent = `At ${clock(time_s)}`;
    $("moment-words").textContent = words || (thumb ? "" : "No picture of this moment is kept in this browser.");
    $("moment-picture").hidden = !thumb;
    if (thumb) {
      $("moment-picture").src = thumb.url;
      $("moment-picture").alt = `What was seen at ${clock(thumb.time_s)}`;
    }
  }
}
