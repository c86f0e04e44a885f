// The language of the page, and its texts.
import { $ } from "./dom.js";
import { words } from "./words.js";

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export const locale = () => (language === "zh" ? "zh-CN" : "en-US");

export const hasText = (key) => key in words[language];

export const text = (key, ...values) =>
  values.reduce((sentence, value, number) => sentence.replace(`{${number}}`, value), words[language][key] ?? key);

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
}

export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  for (const option of document.querySelectorAll("option[value='']")) option.textContent = text("asModel");
  $("language").textContent = text("other");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
}
