// Standing rules, and search over the past.

import { $, SENSES, clock, make, span } from "./dom.js";

export class Rules {
  constructor(link, show) {
    Object.assign(this, { link, show });
    this.latest = new Map(); // name -> the last event
    this.rules = [];
    $("add-rule").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("rule").value.trim();
      if (text) link.send("anymodal.rule.add", { text, event_id: "rule" });
      $("rule").value = "";
    });
    link.addEventListener("anymodal.rules", ({ detail }) => { this.rules = detail.rules; this.#draw(); });
    link.addEventListener("anymodal.rule.event", ({ detail }) => { this.latest.set(detail.rule, detail); this.#draw(); });
    this.#draw();
  }

  clear() {
    this.rules = [];
    this.latest.clear();
    this.#draw();
  }

  #draw() {
    const rows = this.rules.map((rule) => this.#row(rule));
    $("rules").replaceChildren(...(rows.length ? rows : [make("li", { className: "none" }, "No rules yet. Each one is looked at with every second that is seen.")]));
  }

  #row({ name, text, paused, active }) {
    const tool = (words, label, type) => make("button", { type: "button", "aria-label": `${label}: ${text}`,
      onclick: () => this.link.send(type, { name }) }, words);
    const event = this.latest.get(name);
    const row = make("li", { className: [paused && "paused", active && !paused && "active"].filter(Boolean).join(" ") },
      make("span", {}, text), make("span", { className: "tools" },
        paused ? tool("Resume", "Resume", "anymodal.rule.resume") : tool("Pause", "Pause", "anymodal.rule.pause"),
        tool("×", "Remove", "anymodal.rule.remove")));
    if (event) {
      row.append(make("button", { type: "button", className: "chip rule", onclick: () => this.show(event.t_s, text) },
        `at ${clock(event.t_s, 0)}, ${Math.round(100 * event.confidence)} % sure`));
    }
    return row;
  }
}

export class Search {
  constructor(link, thumbs, show) {
    Object.assign(this, { link, thumbs, show });
    $("find").addEventListener("submit", (event) => {
      event.preventDefault();
      const query = $("query").value.trim();
      if (!query) return;
      $("hits").replaceChildren(make("li", { className: "none" }, "looking…"));
      link.send("anymodal.search", { query, event_id: "search" });
    });
    link.addEventListener("anymodal.search.results", ({ detail }) => this.#draw(detail));
  }

  clear() { $("hits").replaceChildren(); }

  failed(error) {
    if (error.event_id !== "search") return false;
    $("hits").replaceChildren(make("li", { className: "none" }, error.message));
    return true;
  }

  #draw({ query, hits }) {
    const rows = hits.slice(0, 30).map((hit) => {
      const thumb = this.thumbs.at((hit.start_s + hit.end_s) / 2);
      const words = `${hit.text || query} · ${SENSES[hit.modality] ?? hit.modality} ${span(hit.start_s, hit.end_s)}`;
      return make("li", {}, make("button", { type: "button", onclick: () => this.show(hit.start_s, words) },
        make("img", thumb ? { src: thumb.url, alt: "" } : { alt: "", hidden: true }),
        make("span", {}, words)));
    });
    $("hits").replaceChildren(...(rows.length ? rows : [make("li", { className: "none" }, `Nothing like “${query}” was found.`)]));
  }
}
