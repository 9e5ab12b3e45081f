// Questions and answers: typed or spoken, as of now or of a moment; answers stream in and name the spans they rely on.

import { $, SENSES, clock, make, span } from "./dom.js";

const MOST_TURNS = 200;

export class Talk {
  constructor(link, thumbs, show, onAnswer) {
    Object.assign(this, { link, thumbs, show, onAnswer });
    this.list = $("talk");
    this.turns = new Map(); // our id -> turn
    this.answers = new Map(); // response id -> turn
    this.spoken = new Map(); // item id -> turn
    this.waiting = []; // turns to be asked once the running answer has ended
    this.running = null;
    this.count = 0;
    this.at_s = null;
    const on = (type, act) => link.addEventListener(type, ({ detail }) => act(detail));
    on("response.created", (e) => this.#created(e.response));
    on("response.output_text.delta", (e) => this.#delta(e));
    on("response.done", (e) => this.#done(e.response));
    on("input_audio_buffer.speech_started", (e) => this.#speaks(e.item_id, "listening…"));
    on("input_audio_buffer.speech_stopped", (e) => this.#speaks(e.item_id, "making it out…"));
    on("input_audio_buffer.committed", (e) => this.#speaks(e.item_id, "making it out…"));
    on("conversation.item.input_audio_transcription.completed", (e) => this.#heard(e.item_id, e.transcript));
    on("conversation.item.input_audio_transcription.failed", (e) => this.#misheard(e.item_id, e.error.message));
    $("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("question").value.trim();
      if (text) this.ask(text, this.at_s);
      $("question").value = "";
    });
    $("stop").addEventListener("click", () => this.#cancel());
    $("asof-clear").addEventListener("click", () => this.asOf(null));
  }

  /** The next question is answered as of a moment; null: as of now. */
  asOf(time_s) {
    this.at_s = time_s;
    $("asof").hidden = time_s === null;
    if (time_s !== null) $("asof-time").textContent = clock(time_s);
    $("question").focus();
  }

  ask(text, at_s = null) {
    const turn = this.#turn(text);
    turn.at_s = at_s;
    if (this.running) {
      this.waiting.push(turn);
      this.#cancel();
    } else this.#send(turn);
    this.asOf(null);
  }

  /** An error event that answers one of our questions. */
  failed(error) {
    const turn = this.turns.get(error.event_id);
    if (!turn) return false;
    this.#fail(turn, error.message);
    this.#next(turn);
    return true;
  }

  /** The session is gone: what was asked will not be answered. */
  reset() {
    for (const turn of this.turns.values()) if (turn.open) this.#fail(turn, "The session ended before the answer.");
    this.answers.clear();
    this.spoken.clear();
    this.waiting = [];
    this.#run(null);
  }

  #send(turn) {
    this.#run(turn);
    const item = { type: "message", role: "user", content: [{ type: "input_text", text: turn.text }] };
    this.link.send("response.create", { event_id: turn.id, response: { input: [item], metadata: { turn: turn.id },
      ...(turn.at_s === null ? {} : { anymodal: { at_s: turn.at_s } }) } });
  }

  #cancel() {
    if (this.running?.response) this.link.send("response.cancel", { response_id: this.running.response });
  }

  #run(turn) {
    this.running = turn;
    $("stop").hidden = !turn;
  }

  /** After `turn` has ended, ask what waits. */
  #next(turn) {
    if (this.running !== turn) return;
    this.#run(null);
    if (this.waiting.length) this.#send(this.waiting.shift());
  }

  // -- answers --------------------------------------------------------------------------------------------------------

  #created(response) {
    const turn = this.turns.get(response.metadata?.turn)
      ?? [...this.spoken.values()].findLast((each) => each.text && !each.response) ?? this.#turn("");
    turn.response = response.id;
    this.answers.set(response.id, turn);
    turn.li.classList.add("busy");
    this.#run(turn);
    if (this.waiting.length && !this.waiting.includes(turn)) this.#cancel();
  }

  #delta({ response_id, delta }) {
    const turn = this.answers.get(response_id);
    if (!turn) return;
    turn.a.textContent += delta;
    this.#scroll();
  }

  #done(response) {
    const turn = this.answers.get(response.id);
    if (!turn) return;
    const text = response.output?.[0]?.content?.map((part) => part.text ?? "").join("");
    if (response.status === "failed") this.#fail(turn, response.status_details?.error?.message ?? "The answer failed.");
    else {
      turn.open = false;
      turn.li.classList.remove("busy");
      if (text) turn.a.textContent = text;
      const spoke = response.status_details?.reason === "turn_detected";
      if (response.status !== "completed") turn.li.append(make("p", { className: "meta" }, spoke ? "stopped: somebody spoke" : "stopped"));
      else if (!turn.a.textContent) turn.a.textContent = "(no words)";
    }
    if (response.anymodal) this.#ground(turn, response.anymodal);
    this.answers.delete(response.id);
    this.#next(turn);
    this.#scroll();
  }

  /** What the answer stands on. */
  #ground(turn, found) {
    const chips = found.evidence.map((each) => {
      const thumb = each.modality === "video" ? this.thumbs.at(each.start_s + 0.5) : null;
      const words = `${SENSES[each.modality] ?? each.modality} ${span(each.start_s, each.end_s)}`;
      return make("button", { type: "button", className: `chip ${each.modality}`, title: "Show the moment",
        onclick: () => this.show(each.start_s, `${words}: what the answer “${turn.a.textContent}” relies on`) },
      thumb && make("img", { src: thumb.url, alt: "" }), words);
    });
    if (chips.length) turn.li.append(make("div", { className: "chips" }, ...chips));
    const meta = [`${Math.round(100 * found.confidence)} % sure`, `as of ${clock(found.at_s)}`,
      `first word after ${found.time_to_first_token_s.toFixed(2)} s`, found.frames_dropped && `${found.frames_dropped} frames missed`,
      found.windows_missing && `${found.windows_missing} windows missing`];
    turn.li.append(make("p", { className: "meta" }, meta.filter(Boolean).join(" · ")));
    this.onAnswer(turn.text, found.at_s, turn.a.textContent);
  }

  // -- speech ---------------------------------------------------------------------------------------------------------

  #speaks(item, words) {
    let turn = this.spoken.get(item);
    if (!turn) {
      turn = this.#turn("");
      this.spoken.set(item, turn);
      turn.q.classList.add("spoken");
      turn.a.hidden = true;
    }
    if (!turn.text) turn.q.replaceChildren(make("em", {}, words));
  }

  #heard(item, text) {
    this.#speaks(item, "");
    const turn = this.spoken.get(item);
    if (!text.trim()) {
      this.#forget(turn);
      return;
    }
    turn.text = text;
    turn.a.hidden = false;
    turn.q.textContent = text;
    const mend = make("button", { type: "button", className: "small mend", onclick: () => {
      $("question").value = text;
      $("question").focus();
      $("question").select();
    } }, "Correct this");
    turn.q.after(mend);
    this.#scroll();
  }

  #misheard(item, message) {
    this.#speaks(item, "");
    this.#fail(this.spoken.get(item), message);
  }

  // -- turns ----------------------------------------------------------------------------------------------------------

  #turn(text) {
    const id = `turn-${++this.count}`;
    const q = make("p", { className: "q" }, text), a = make("p", { className: "a" });
    const turn = { id, text, q, a, at_s: null, response: null, open: true, li: make("li", { className: "turn" }, q, a) };
    this.turns.set(id, turn);
    this.list.append(turn.li);
    if (this.turns.size > MOST_TURNS) this.#forget(this.turns.values().next().value);
    this.#scroll();
    return turn;
  }

  #fail(turn, message) {
    turn.open = false;
    turn.a.hidden = false;
    turn.li.classList.remove("busy");
    turn.li.classList.add("failed");
    turn.a.textContent = message;
  }

  #forget(turn) {
    turn.li.remove();
    this.turns.delete(turn.id);
    for (const [item, each] of this.spoken) if (each === turn) this.spoken.delete(item);
  }

  #scroll() { this.list.scrollTop = this.list.scrollHeight; }
}
