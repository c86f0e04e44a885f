// The page: requests become tasks, tasks become pictures, and pictures a history in this browser.
import * as composer from "./composer.js";
import * as costs from "./costs.js";
import { $ } from "./dom.js";
import { explained } from "./explain.js";
import * as gallery from "./gallery.js";
import * as items from "./items.js";
import { onSwitch, switchLanguage, text, translate } from "./language.js";
import { menu, toast } from "./popups.js";
import * as runs from "./runs.js";
import * as service from "./service.js";
import * as store from "./store.js";

// What not every visit needs is loaded when it is.
const room = () => import("./room.js");
const viewer = () => import("./viewer.js");
const askForToken = async (wanted) => (await import("./token.js")).askForToken(wanted);

async function ask(request, inputs, count) {
  gallery.clearFilter();
  await runs.ask(request, inputs, count);
  scrollTo({ top: 0 });
  store.persist();
}

function say(sentence) {
  $("status").textContent = sentence;
}

const events = {
  unauthorized: () => askForToken().then(tokenChanged),
  full: () => toast(text("full"), null, 15),
  made: (item) => say(text("ready", item.prompt)),
  failed(item) {
    const { what, todo } = explained(item);
    say(`${what} ${todo}`);
  },
};

async function tokenChanged(given) {
  if (!given) return;
  await loadModels();
  runs.goOn("token");
}

async function loadModels() {
  let models;
  try {
    models = await service.models();
  } catch {
    return; // the service is not there: what is asked for waits for it
  }
  $("demo").hidden = !models.demo;
  $("demo-hint").hidden = !models.demo;
  if (models.unauthorized) return events.unauthorized();
  composer.setModels(models.listed);
}

function showMenu() {
  menu($("menu"), [
    { label: text("room"), act: async () => (await room()).show() },
    { label: text("export"), act: async () => (await room()).exportAll() },
    { label: text("import"), act: async () => (await room()).chooseImport() },
    { label: text("token"), act: () => askForToken(true).then(tokenChanged) },
    { label: text("docs"), href: "/docs" },
  ]);
}

function showSearch() {
  const open = document.body.classList.toggle("searching");
  $("find").setAttribute("aria-expanded", String(open));
  if (open) $("search").focus();
  else gallery.clearFilter();
}

store.whenInTheWay(
  () => toast(text("otherTab"), null, 3600),
  () => toast(text("newerTab"), null, 3600),
);
translate();
runs.start(events);
composer.start(ask);
gallery.start(async (item) => (await viewer()).open(item));
costs.show();
onSwitch(costs.show);
onSwitch(() => say(""));
$("language").addEventListener("click", switchLanguage);
$("spent").addEventListener("click", async () => (await import("./dialogs.js")).spending());
$("menu").addEventListener("click", showMenu);
$("find").addEventListener("click", showSearch);
for (const example of document.querySelectorAll("[data-example]")) {
  const { example: name, ratio } = example.dataset;
  example.addEventListener("click", () => composer.example(text(`example_${name}`), ratio));
}
addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea, select, pre") || document.querySelector("dialog[open]");
  if (event.key !== "/" || isTyping) return;
  event.preventDefault();
  $("prompt").focus();
});

const [, lasting] = await Promise.all([items.load(), store.isLasting()]);
if (!lasting) toast(text("notLasting"), null, 30);
await items.purge(items.hidden().map((item) => item.id));
$("gallery").setAttribute("aria-busy", "false");
runs.resume();
runs.stopCancelled();
await loadModels();
