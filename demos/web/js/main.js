// The page: what the server says goes to the parts that show it, what is captured goes to the server.

import { $, clock, notice, themes, unsay } from "./dom.js";
import { Link } from "./link.js";
import { MediaClock, Pictures } from "./capture.js";
import { Sound } from "./sound.js";
import { Motion } from "./motion.js";
import { Thumbs } from "./thumbs.js";
import { Moment, Timeline } from "./timeline.js";
import { Talk } from "./talk.js";
import { Rules, Search } from "./panels.js";
import { Sources } from "./sources.js";

const STATES = { connecting: "connecting", live: "connected", lost: "reconnecting", busy: "server busy", ended: "not connected" };

themes($("theme"));
const address = new URL("v1/realtime", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const link = new Link(address);
const time = new MediaClock();
const thumbs = new Thumbs();
let droppedThere = 0;

const moment = new Moment(thumbs, (at_s) => talk.asOf(at_s));
const show = (at_s, words) => { timeline.jump(at_s); moment.open(at_s, words); };
const timeline = new Timeline($("timeline"), $("follow"), thumbs, (at_s, words) => moment.open(at_s, words));
const talk = new Talk(link, thumbs, show, (question, at_s, answer) => timeline.answer(question, at_s, `${question} ${answer}`));
const rules = new Rules(link, show);
const search = new Search(link, thumbs, show);
const pictures = new Pictures($("video"), time, link, {
  keepThumb: (at_s, blob) => thumbs.keep(at_s, blob),
  stats: (sent, dropped, rate_hz) => {
    $("rate").textContent = rate_hz.toFixed(1);
    $("sent").textContent = sent;
    count("dropped-here", dropped);
  },
});
const sound = new Sound(time, link, (level) => { $("level").value = level; });
const motion = new Motion(time, link);
const sources = new Sources({ link, clock: time, pictures, sound, motion });

function count(id, value) {
  $(id).textContent = value;
  $(id).parentElement.classList.toggle("alarm", value > 0);
}

function on(type, act) { link.addEventListener(type, ({ detail }) => act(detail)); }

on("state", ({ state, words, retry_s }) => {
  $("state").dataset.state = state;
  $("state").textContent = STATES[state];
  if (state === "live") ["lost", "busy", "refused"].forEach(unsay);
  else if (state === "busy") notice("busy", "The server is busy", `${words ?? "It has no place for another session."} Trying again in ${Math.ceil(retry_s)} s.`, { kind: "warn" });
  else if (state === "lost") notice("lost", "The connection was lost", "It is being taken up again by itself. What is captured meanwhile is kept and sent then.", { kind: "warn" });
});

on("session", (session) => {
  const { wants, speech } = session.anymodal;
  $("model").textContent = session.model ?? "–";
  $("speech").textContent = speech ?? "none: type your questions";
  $("listen").disabled = !speech;
  $("listen").checked = Boolean(speech && session.audio?.input?.turn_detection);
  $("listen-words").textContent = speech ? "Listen for spoken questions" : "This server hears no spoken questions: type them";
  $("listen-name").textContent = speech ? `by ${speech}` : "";
  if (wants?.video) pictures.wants = wants.video;
  if (wants?.audio) sound.rate_hz = wants.audio.rate_hz;
  if (wants?.imu) motion.wants = wants.imu;
  for (const [id, sense] of [["camera", "video"], ["share", "video"], ["microphone", "audio"], ["motion", "imu"]]) {
    $(id).hidden = Boolean(wants && !wants[sense]);
  }
});

on("begun", () => link.send("anymodal.rule.list"));
on("resumed", ({ lost }) => {
  notice("resumed", "The connection is back", lost ? `${lost} events of the server were missed.` : "Nothing was lost.", { kind: "info", for_s: 5 });
});
on("lost", (frames) => {
  pictures.dropped += frames;
  count("dropped-here", pictures.dropped);
});
on("gone", () => {
  time.reset();
  [thumbs, timeline, rules, search].forEach((part) => part.clear());
  talk.reset();
  sources.again();
  droppedThere = 0;
  notice("gone", "A new session was begun", "The server no longer has the one from before: it was away for too long.", { kind: "warn" });
});

on("refused", ({ code, message }) => {
  if (/api_key/.test(code ?? "")) {
    $("key-words").textContent = link.key ? message : "Ask whoever runs it. The key stays in this page until you leave it.";
    $("key").showModal();
  } else if (/^replaced/.test(code ?? "")) notice("refused", "This session goes on in another window", "Reload the page to begin a new one.", { kind: "warn" });
  else notice("refused", "The server refuses the connection", `${message || code || "It gives no reason."} Reload the page to try again.`);
});
$("key").addEventListener("close", () => {
  link.key = $("key-value").value.trim();
  if (link.key) link.connect();
});

on("anymodal.window", (event) => {
  const dropped = Object.values(event.dropped ?? {}).reduce((sum, each) => sum + each, 0);
  droppedThere += dropped;
  if (dropped) notice("slow", "Not everything can be seen", "The server, the network or this device is too slow for all that is captured. What is left out is marked in the timeline.", { kind: "warn", for_s: 5 });
  count("dropped-there", droppedThere);
  $("clock").textContent = clock(event.end_s);
  timeline.window(event);
});
on("anymodal.rule.event", (event) => {
  timeline.rule(event);
  notice(`rule ${event.rule}`, event.text, `Seen at ${clock(event.t_s)}, ${Math.round(100 * event.confidence)} % sure.`, { kind: "info", for_s: 8 });
});
on("error", ({ error }) => {
  if (talk.failed(error) || search.failed(error)) return;
  if (error.code === "response_cancel_not_active") return; // it had just ended
  if (/too late/.test(error.message)) return; // counted, and told with its window
  notice(`error ${error.code}`, error.event_id === "rule" ? "The rule was not taken" : "The server did not take something", error.message, { kind: "warn", for_s: 10 });
});

$("listen").addEventListener("change", () => {
  const turn_detection = $("listen").checked ? { type: "server_vad" } : null;
  link.send("session.update", { session: { type: "realtime", audio: { input: { turn_detection } } } });
});
addEventListener("pagehide", (event) => { if (!event.persisted) link.close(); });

link.connect();
