// The language of the page, and its texts.
import { $ } from "./dom.js";

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
const listeners = new Set();
// Only the one that is read is loaded.
const load = async () => (await (language === "zh" ? import("./words-zh.js") : import("./words-en.js"))).words;
let words = await load();

export const locale = () => (language === "zh" ? "zh-CN" : "en-US");
export const onSwitch = (listener) => listeners.add(listener);
export const hasText = (key) => key in words;

export const text = (key, ...values) =>
  values.reduce((sentence, value, number) => sentence.replaceAll(`{${number}}`, () => value), words[key] ?? key);

// The same, for a number: `key_one` where the language has a form for one.
export const counted = (key, count) => text(count === 1 && hasText(`${key}_one`) ? `${key}_one` : key, number(count));

export const number = (value, options) => new Intl.NumberFormat(locale(), options).format(value);

export const time = (milliseconds, options) => new Intl.DateTimeFormat(locale(), options).format(milliseconds);

// "today", "yesterday", or the day.
export function dayOf(milliseconds) {
  const midnight = new Date(milliseconds).setHours(0, 0, 0, 0);
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - midnight) / 86_400_000);
  if (days < 2) return text(days ? "yesterday" : "today");
  const year = new Date(midnight).getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return time(midnight, { weekday: "long", day: "numeric", month: "long", year });
}

export async function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  words = await load();
  localStorage.setItem("language", language);
  translate();
  for (const listener of listeners) listener();
}

export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", text(node.dataset.label));
    if (node.tagName === "BUTTON" || node.tagName === "SELECT") node.title = text(node.dataset.label);
  }
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
}
