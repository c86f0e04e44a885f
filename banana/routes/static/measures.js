// How large a picture is: its size by name, its bytes.
import { number } from "./language.js";

const SIDES = { 512: 512, "1K": 1024, "2K": 2048, "4K": 4096 };

// The size by name that a picture of so many pixels has.
export function sizeOf({ width, height }) {
  const side = Math.log(Math.sqrt(width * height));
  const far = (name) => Math.abs(Math.log(SIDES[name]) - side);
  return Object.keys(SIDES).reduce((best, name) => (far(name) < far(best) ? name : best));
}

export function bytes(count) {
  const [unit, power] = count < 1e6 ? ["kB", 1] : count < 1e9 ? ["MB", 2] : ["GB", 3];
  return `${number(count / 1000 ** power, { maximumSignificantDigits: power === 1 ? 3 : 2 })} ${unit}`;
}
