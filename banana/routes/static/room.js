// The room that the pictures take in this browser, ways to make some, and ways out and in.
import { remove } from "./actions.js";
import * as archive from "./archive.js";
import { dialog } from "./dialogs.js";
import { $, button, element } from "./dom.js";
import * as items from "./items.js";
import { counted, text } from "./language.js";
import { bytes } from "./measures.js";
import { toast } from "./popups.js";

const MONTH = 30 * 86_400_000;

const sizeOf = (list) => list.reduce((sum, item) => sum + (item.bytes ?? 0), 0);

export async function show() {
  const list = items.done();
  const estimate = await navigator.storage?.estimate?.().catch(() => null);
  const used = estimate
    ? text("roomOf", bytes(estimate.usage), bytes(estimate.quota))
    : text("roomUsed", bytes(sizeOf(list)));
  const ways = [
    ["roomOld", list.filter((item) => item.made < Date.now() - MONTH && !item.favourite)],
    ["roomOthers", list.filter((item) => !item.favourite)],
    ["roomAll", list],
  ];
  const closing = (act) => () => {
    document.querySelector("dialog.small[open]")?.close();
    act();
  };
  const buttons = ways.map(([name, some]) =>
    button(
      `${text(name)} (${counted("pictures", some.length)}, ${bytes(sizeOf(some))})`,
      closing(() => remove(some)),
      {
        disabled: some.length ? null : "",
      },
    ),
  );
  const meter =
    estimate &&
    element("progress", { max: "1", value: String(estimate.usage / estimate.quota), "aria-label": text("room") });
  await dialog(text("room"), [
    element("p", {}, `${counted("pictures", list.length)}. ${used}`),
    meter ?? "",
    element("p", { class: "hint" }, text("roomHint")),
    element("div", { class: "column" }, button(text("export"), closing(exportAll)), ...buttons),
  ]);
}

export const exportAll = () =>
  items.done().length
    ? archive.exportAll().catch((error) => toast(text(error instanceof RangeError ? "tooMuch" : "notThere")))
    : toast(text("nothingYet"));

export const chooseImport = () => $("import").click();

function start() {
  $("import").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (!file) return;
    try {
      toast(counted("imported", await archive.importFrom(file)));
    } catch (error) {
      toast(text(error?.name === "QuotaExceededError" ? "full" : "noExport"));
    }
  });
}

start();
