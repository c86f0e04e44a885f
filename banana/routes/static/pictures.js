// A picture as a file: its bytes, its name, its way to the clipboard.
import { element } from "./dom.js";

export const extensionOf = (type) => ({ "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" })[type] ?? "img";

export function blobOf(base64, type) {
  const bytes = Uint8Array.fromBase64?.(base64) ?? Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type });
}

export function fileName({ prompt, blob, made }) {
  const words = prompt.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${words.slice(0, 40) || "picture"}-${new Date(made).toISOString().slice(0, 10)}.${extensionOf(blob.type)}`;
}

export const fileOf = (picture) => new File([picture.blob], fileName(picture), { type: picture.blob.type });

export async function copyPicture(image) {
  const canvas = element("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  const png = new Promise((resolve) => canvas.toBlob(resolve, "image/png")); // the only type that clipboards take everywhere
  await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
}
