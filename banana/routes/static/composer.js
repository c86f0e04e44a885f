// The form: the prompt, the pictures to start from, the settings, and what is wrong with them.
import * as costs from "./costs.js";
import { $, element } from "./dom.js";
import { text } from "./language.js";
import * as service from "./service.js";

const RATIOS = ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"];
const SIZES = ["1K", "2K", "4K"];
const COUNTS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
const TYPES = ["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"];
const MAX_PICTURES = 14;
const MAX_PICTURE_BYTES = 50 * 1024 * 1024;

let inputs = []; // {file, url}
let countdown = null;

export const count = () => Number($("count").value);
export const isCountingDown = () => countdown !== null;

// What is asked for now.
export const request = () => ({
  prompt: $("prompt").value.trim(),
  pictures: inputs.map((input) => input.file),
  ratio: $("ratio").value,
  size: $("size").value,
  model: $("model").value,
});

export function complain(message) {
  $("message").textContent = message;
}

// Whether the form can be sent; says why not.
export function check() {
  complain("");
  useToken();
  if ($("prompt").value.trim()) return true;
  complain(text("blank"));
  $("prompt").focus();
  return false;
}

function useToken() {
  if ($("token").value) service.setToken($("token").value);
}

export function setRunning(running) {
  $("cancel").hidden = !running;
  if (!isCountingDown()) $("send").disabled = running;
}

export function askForToken() {
  service.forgetToken();
  $("token-field").hidden = false;
  $("token").focus();
}

// The rate limit: sending is off until `seconds` are over, which are counted down.
export function waitFor(seconds) {
  const until = Date.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    $("send").disabled = left > 0;
    complain(left > 0 ? text("limited", left) : "");
    if (left > 0) return;
    clearInterval(countdown);
    countdown = null;
  };
  clearInterval(countdown);
  countdown = setInterval(tick, 1000);
  tick();
}

export function addInputs(files) {
  for (const file of files) {
    if (!TYPES.includes(file.type)) complain(text("wrongType", file.name));
    else if (file.size > MAX_PICTURE_BYTES) complain(text("tooLarge", file.name));
    else if (inputs.length >= MAX_PICTURES) complain(text("tooMany"));
    else inputs.push({ file, url: URL.createObjectURL(file) });
  }
  showInputs();
}

export function showInputs() {
  $("inputs").replaceChildren(...inputs.map(shown));
}

function shown(input) {
  const onclick = () => {
    inputs = inputs.filter((other) => other !== input);
    URL.revokeObjectURL(input.url);
    showInputs();
  };
  const remove = element("button", { type: "button", "aria-label": text("remove", input.file.name), onclick }, "×");
  return element("li", {}, element("img", { src: input.url, alt: input.file.name }), remove);
}

function fill(select, values, optional) {
  const automatic = optional ? [element("option", { value: "" }, text("asModel"))] : [];
  select.replaceChildren(...automatic, ...values.map((value) => element("option", { value }, value)));
}

export async function loadModels() {
  const models = await service.models();
  if (!models) return;
  $("demo").hidden = !models.demo;
  if (models.unauthorized) $("token-field").hidden = false;
  if (!models.listed) return;
  const ids = models.listed.map((model) => model.id);
  fill($("model"), ids, true);
  costs.setModels(models.listed);
}

function takeFiles() {
  $("files").addEventListener("change", (event) => {
    addInputs(event.target.files);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    addInputs(files);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") addInputs(event.dataTransfer.files);
    });
  }
}

// Makes the form work; `send` and `cancel` are what its buttons do.
export function start(send, cancel) {
  fill($("ratio"), RATIOS, true);
  fill($("size"), SIZES, true);
  fill($("count"), COUNTS, false);
  fill($("model"), [], true);
  takeFiles();
  $("form").addEventListener("change", () => costs.estimate({ ...request(), count: count() }));
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("form").requestSubmit();
  });
  $("token").addEventListener("change", async () => {
    useToken();
    await loadModels(); // and their prices, which need a token too
  });
  $("cancel").addEventListener("click", cancel);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("viewer").open) cancel();
  });
}
