// A picture as a file: its measures and its name.
import { element } from "./dom.js";

export const TYPES = ["image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"];
const THUMB = { width: 960, height: 480 };

export const extensionOf = (type) => ({ "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp" })[type] ?? "img";

export function fileName({ prompt, type, made }) {
  const words = prompt.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${words.slice(0, 40) || "picture"}-${new Date(made).toISOString().slice(0, 10)}.${extensionOf(type)}`;
}

export const ratioOf = (name) => name.split(":").reduce((wide, high) => wide / high);

// {width, height, thumb} in pixels; nothing of what the browser cannot open.
export async function measured(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob);
  } catch {
    return { width: null, height: null, thumb: null };
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, Math.max(THUMB.height / height, 160 / width), THUMB.width / width);
  const canvas = drawn(bitmap, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  bitmap.close();
  return { width, height, thumb: await blobOf(canvas, "image/webp", 0.82) };
}

export function drawn(image, width, height) {
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return canvas;
}

export const blobOf = (canvas, type, quality) => new Promise((resolve) => canvas.toBlob(resolve, type, quality));
