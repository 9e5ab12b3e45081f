// The socket of a session, which outlives connections: events are numbered and kept until they are safe, and after a
// break the session goes on where it was. See docs/protocol.md.

import { base64 } from "./dom.js";

const FIRST_WAIT_MS = 250, LONGEST_WAIT_MS = 5000, BUSY_WAIT_MS = 3000;
const KEPT_BYTES = 24 * 2 ** 20; // of what is not yet safe; past it the oldest media are given up, and counted
const SILENT_MS = 6000, DEAD_MS = 12000; // without a word of the server: ask for one; take it for gone
const UNSENT_BYTES = 4 * 2 ** 20; // in the socket's own buffer: more is not put there
const MEDIA = new Set(["anymodal.input.append", "input_audio_buffer.append"]);

/** Events: "state" {state, words, retry_s}, "session" SessionConfig, "refused" {code, message}, "lost" number of media
 * given up, "begun" after a new session, "resumed", and every event of the server under its own type. */
export class Link extends EventTarget {
  constructor(address) {
    super();
    this.address = address;
    this.key = "";
    this.session = null; // {id, token}
    this.last = 0; // of the server's numbers
    this.seq = 0; // of ours
    this.kept = new Map(); // number -> {text, media}
    this.keptBytes = 0;
    this.wait_ms = FIRST_WAIT_MS;
    this.given_up = false;
    this.ready = false;
    this.fault = null; // the last error event
    setInterval(() => this.#watch(), 1000);
    addEventListener("online", () => this.#again(0));
    addEventListener("offline", () => this.#drop());
  }

  connect() {
    clearTimeout(this.timer);
    this.given_up = false;
    const url = new URL(this.address);
    if (this.session) {
      url.searchParams.set("anymodal_session", this.session.id);
      url.searchParams.set("anymodal_token", this.session.token);
      url.searchParams.set("anymodal_last", this.last);
    }
    const protocols = ["realtime", ...(this.key ? [`openai-insecure-api-key.${this.key}`] : [])];
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    this.heard_at = performance.now();
    this.fault = null;
    this.#tell("state", { state: this.session ? "lost" : "connecting" });
    socket.onmessage = (message) => { if (socket === this.socket) this.#hear(message.data); };
    socket.onclose = (event) => { if (socket === this.socket) this.#closed(event); };
  }

  /** Send an event, now or as soon as there is a connection again. */
  send(type, fields = {}) {
    const seq = ++this.seq;
    const text = JSON.stringify({ type, ...fields, anymodal: { seq } });
    this.kept.set(seq, { text, media: MEDIA.has(type) });
    this.keptBytes += text.length;
    this.#bound();
    if (this.ready) this.#put(text);
    return seq;
  }

  /** Media that find no room in the socket are better left out: the next ones are newer. */
  get crowded() {
    return this.ready ? this.socket.bufferedAmount > UNSENT_BYTES : false;
  }

  sendBytes(type, fields, name, bytes) {
    return this.send(type, { ...fields, [name]: base64(bytes) });
  }

  /** The session is over for good. */
  close() {
    this.given_up = true;
    if (this.ready) this.#put(JSON.stringify({ type: "anymodal.session.close", anymodal: { seq: ++this.seq } }));
  }

  // -- in -----------------------------------------------------------------------------------------------------------

  #hear(data) {
    this.heard_at = performance.now();
    let event;
    try { event = JSON.parse(data); } catch { return; }
    const number = event.anymodal?.seq ?? 0;
    const ours = event.type === "anymodal.ack" || event.type === "anymodal.resumed"; // of the connection, not the session
    if (!ours && number && number <= this.last) {
      if (event.type === "error") this.fault = event.error; // before there is a session
      return;
    }
    if (!ours) this.last = Math.max(this.last, number);
    if (event.type === "error") this.fault = event.error;
    if (event.session?.anymodal?.token) {
      this.session = { id: event.session.anymodal.id, token: event.session.anymodal.token };
      this.#tell("session", event.session);
    }
    if (event.type === "session.created" && !this.ready) this.#begin("begun", 0);
    if (event.type === "anymodal.resumed") this.#begin("resumed", event.client_seq, event.lost);
    if (event.type === "anymodal.ack") this.#safe(event.client_seq);
    this.#tell(event.type, event);
  }

  #begin(how, taken, lost = 0) {
    this.ready = true;
    this.wait_ms = FIRST_WAIT_MS;
    this.#safe(taken);
    for (const { text } of this.kept.values()) this.#put(text);
    this.#tell("state", { state: "live" });
    this.#tell(how, { lost });
  }

  #safe(number) {
    for (const [seq, { text }] of this.kept) {
      if (seq > number) break;
      this.kept.delete(seq);
      this.keptBytes -= text.length;
    }
  }

  #bound() {
    if (this.keptBytes <= KEPT_BYTES) return;
    for (const [seq, { text, media }] of this.kept) {
      if (this.keptBytes <= KEPT_BYTES) return;
      if (!media) continue;
      this.kept.delete(seq);
      this.keptBytes -= text.length;
      if (!this.ready) this.#tell("lost", 1); // it was sent otherwise, only not yet safe
    }
  }

  #put(text) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(text);
  }

  // -- connections end ----------------------------------------------------------------------------------------------

  #closed(event) {
    this.ready = false;
    const { code } = event, fault = this.fault;
    if (this.given_up) return;
    if (code === 1008 || code === 1011 && fault) {
      if (fault?.code === "session_gone" && this.session) {
        this.#forget();
        this.#tell("gone", fault);
        this.#again(0);
        return;
      }
      this.given_up = true;
      this.#tell("state", { state: "ended" });
      this.#tell("refused", fault ?? { code: event.reason.split(":")[0], message: event.reason });
      return;
    }
    const busy = code === 1013;
    this.#again(busy ? BUSY_WAIT_MS : this.wait_ms, busy ? fault ?? {} : null);
  }

  #forget() {
    this.session = null;
    this.last = this.seq = this.keptBytes = 0;
    this.kept.clear();
  }

  #again(wait_ms, busy = null) {
    if (this.given_up || this.ready) return;
    clearTimeout(this.timer);
    const jitter_ms = wait_ms * 0.2 * Math.random();
    this.#tell("state", { state: busy ? "busy" : "lost", words: busy?.message, retry_s: wait_ms / 1000 });
    this.wait_ms = Math.min(LONGEST_WAIT_MS, Math.max(FIRST_WAIT_MS, 1.8 * wait_ms));
    this.timer = setTimeout(() => this.connect(), wait_ms + jitter_ms);
  }

  /** The network is gone: sockets do not always notice. */
  #drop() {
    const socket = this.socket;
    if (!socket || this.given_up) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
    this.socket = null;
    this.ready = false;
    this.#again(this.wait_ms);
  }

  #watch() {
    if (!this.socket || this.given_up || this.socket.readyState > WebSocket.OPEN) return;
    const silent_ms = performance.now() - this.heard_at;
    if (silent_ms > DEAD_MS) this.#drop();
    else if (silent_ms > SILENT_MS && this.ready) this.#put(JSON.stringify({ type: "anymodal.rule.list" }));
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
