// What can be done with a picture, from its tile, its menu and its view.
import * as composer from "./composer.js";
import * as items from "./items.js";
import { counted, text } from "./language.js";
import { toast } from "./popups.js";
import * as service from "./service.js";

// The link of a picture that the service still keeps.
async function linkOf(item) {
  const { result } = await service.task(item.task);
  if (!result?.images?.[0]?.startsWith("http")) throw new Error("no link");
  return result.images[0];
}

export const isKept = (item) => Boolean(item.task && item.expires > Date.now());

const on = (act, done, failed) => (item) =>
  act(item).then(
    () => toast(text(done)),
    () => toast(text(failed)),
  );

export const ACTIONS = {
  edit: { act: (item) => composer.edit(item) },
  settings: { act: (item) => composer.useSettings(item) },
  vary: { act: (item) => composer.vary(item) },
  reference: { act: (item) => composer.refer(item) },
  download: { act: (item) => download([item]) },
  copy: {
    act: on(
      async (item) => (await import("./clipboard.js")).copyPicture(await items.blobOf(item)),
      "copiedPicture",
      "notCopied",
    ),
  },
  link: {
    act: on(async (item) => (await import("./clipboard.js")).copyText(await linkOf(item)), "copiedLink", "notShared"),
    when: isKept,
  },
  favourite: { act: (item) => favour([item], !item.favourite) },
  delete: { act: (item) => remove([item]) },
};

// One picture, or a ZIP of several.
export async function download(list) {
  const archive = await import("./archive.js");
  await archive.download(list).catch((error) => toast(text(error instanceof RangeError ? "tooMuch" : "notThere")));
}

export const labelOf = (name, item) => text(name === "favourite" && item.favourite ? "unfavourite" : name);

export const available = (names, item) => names.filter((name) => ACTIONS[name].when?.(item) ?? true);

export async function favour(list, favourite) {
  for (const { id } of list)
    await items.change(id, (item) => ({ ...item, favourite })).catch(() => toast(text("full")));
}

// Removes pictures, with a way back for some seconds; then the service forgets them too.
export async function remove(list) {
  const ids = list.map((item) => item.id);
  await items.hide(ids);
  const undone = await toast(counted("deleted", list.length), { label: text("undo") }, 8);
  if (undone) return items.unhide(ids);
  await items.purge(ids);
  for (const item of list) if (item.state !== "failed" && isKept(item)) service.forget(item.task);
}

export const showDetails = async (item) => (await import("./dialogs.js")).details(item);
