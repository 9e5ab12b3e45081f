// Small helpers for the page: elements, times, notices.

export const $ = (id) => document.getElementById(id);

/** make("li", {className: "x", onclick}, child, "text"): an element; text is never read as markup. */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Seconds as "1:02.5". */
export function clock(time_s, digits = 1) {
  const tenths = Math.floor(Math.max(0, time_s) * 10 ** digits + 1e-6) / 10 ** digits;
  const minutes = Math.floor(tenths / 60);
  const rest = (tenths - 60 * minutes).toFixed(digits);
  return `${minutes}:${rest.padStart(digits ? 3 + digits : 2, "0")}`;
}

export const SENSES = { video: "seen", audio: "heard", imu: "felt" };

export function span(start_s, end_s) {
  return `${clock(start_s, 0)}–${clock(end_s, 0)}`;
}

const shown = new Map();

/** Say something that matters, once for each `key`; the same key again replaces it. kind: "bad", "warn" or "info". */
export function notice(key, title, words = "", { kind = "bad", for_s = 0 } = {}) {
  unsay(key);
  const close = make("button", { type: "button", "aria-label": "Dismiss", onclick: () => unsay(key) }, "×");
  const box = make("div", { className: `notice ${kind}` }, make("b", {}, title), close, words && make("p", {}, words));
  box.dataset.key = key;
  shown.set(key, { box, timer: for_s ? setTimeout(() => unsay(key), 1000 * for_s) : 0 });
  $("notices").append(box);
  while (shown.size > 4) unsay(shown.keys().next().value);
}

export function unsay(key) {
  const old = shown.get(key);
  if (!old) return;
  clearTimeout(old.timer);
  old.box.remove();
  shown.delete(key);
}

/** The theme: the system's, until somebody chooses. */
export function themes(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const show = () => { document.documentElement.dataset.theme = chosen() ?? (system.matches ? "dark" : "light"); };
  button.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", next); } catch { /* private mode: for this visit only */ }
    document.documentElement.dataset.theme = next;
  });
  system.addEventListener("change", show);
  show();
}

/** Bytes -> base64, in pieces that fit a call. */
export function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}
