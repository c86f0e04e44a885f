// Words and pictures to the clipboard, on plain http too.
import { button, element, icon } from "./dom.js";
import { text } from "./language.js";
import { blobOf, drawn } from "./pictures.js";

const COPIED_MILLISECONDS = 1500;

// Copies words; on plain http, where browsers have no clipboard for pages, by a selection.
export async function copyText(words) {
  if (navigator.clipboard) return navigator.clipboard.writeText(words);
  const field = element("textarea", { class: "sr", "aria-hidden": "true" });
  field.value = words;
  copySelected(field, () => field.select());
}

export async function copyPicture(blob) {
  if (navigator.clipboard?.write) {
    // The only type that clipboards take everywhere; as a promise, because some browsers want the click to be recent.
    const png = blob.type === "image/png" ? blob : pngOf(blob);
    return navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
  }
  const image = element("img", { src: await dataUriOf(blob) });
  const frame = element("div", { class: "sr", contenteditable: "true", "aria-hidden": "true" }, image);
  await image.decode();
  copySelected(frame, () => getSelection().selectAllChildren(frame));
}

async function pngOf(blob) {
  const bitmap = await createImageBitmap(blob);
  return blobOf(drawn(bitmap, bitmap.width, bitmap.height), "image/png");
}

function copySelected(node, select) {
  const focused = document.activeElement;
  // Inside a dialog that is open: everything outside of it cannot be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(node);
  select();
  const copied = document.execCommand("copy");
  node.remove();
  focused?.focus();
  if (!copied) throw new Error("not copied");
}

const dataUriOf = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

// An id, short, that is copied whole by a click.
export function copyable(id) {
  const copy = button(id.length > 12 ? `${id.slice(0, 8)}…` : id, () => copied(copy, id), {
    class: "link mono",
    title: id,
    "aria-label": text("copyThis", id),
  });
  return copy;
}

// Copies words, and says so on their button for a moment.
export async function copied(node, words) {
  const before = [...node.childNodes];
  try {
    await copyText(words);
    node.replaceChildren(icon("check"), ` ${text("copied")}`);
  } catch {
    node.replaceChildren(text("notCopied"));
  }
  setTimeout(() => node.replaceChildren(...before), COPIED_MILLISECONDS);
}
