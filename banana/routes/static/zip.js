// ZIP files: written without compression, because pictures are compressed already; read in either form. Source: PKWARE's APPNOTE.
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const MAX_BYTES = 0xffffffff;
const UTF8 = 0x0800;

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

// Little-endian numbers of the sizes that stand before them.
function packed(...pairs) {
  const view = new DataView(new ArrayBuffer(pairs.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of pairs) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return view.buffer;
}

function timeOf(date) {
  const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  return [(date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1), day];
}

// A ZIP of {name, blob, made}; one picture after the other is read. Throws RangeError when it would be 4 GB or more.
export async function zip(files) {
  const parts = [];
  const directory = [];
  let at = 0;
  for await (const { name, blob, made } of files) {
    const title = new TextEncoder().encode(name);
    const [time, day] = timeOf(new Date(made));
    const sum = crc(new Uint8Array(await blob.arrayBuffer()));
    const facts = [
      [2, UTF8],
      [2, 0],
      [2, time],
      [2, day],
      [4, sum],
      [4, blob.size],
      [4, blob.size],
      [2, title.length],
      [2, 0],
    ];
    const local = packed([4, LOCAL], [2, 20], ...facts);
    const central = packed([4, CENTRAL], [2, 20], [2, 20], ...facts, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]);
    parts.push(local, title, blob);
    directory.push(central, title);
    at += local.byteLength + title.length + blob.size;
    if (at > MAX_BYTES) throw new RangeError("4 GB");
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const count = directory.length / 2;
  const end = packed([4, END], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, at], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// The files of a ZIP by their names; throws Error when it is none.
export async function unzip(file) {
  const tail = new DataView(await file.slice(-66_000).arrayBuffer());
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== END) end--;
  if (end < 0) throw new Error("no ZIP");
  const start = tail.getUint32(end + 16, true);
  const directory = new DataView(await file.slice(start, start + tail.getUint32(end + 12, true)).arrayBuffer());
  const files = new Map();
  for (let at = 0; at + 46 <= directory.byteLength && directory.getUint32(at, true) === CENTRAL; ) {
    const [title, extra, comment] = [28, 30, 32].map((offset) => directory.getUint16(at + offset, true));
    const name = new TextDecoder().decode(new Uint8Array(directory.buffer, at + 46, title));
    files.set(name, {
      method: directory.getUint16(at + 10, true),
      size: directory.getUint32(at + 20, true),
      at: directory.getUint32(at + 42, true),
    });
    at += 46 + title + extra + comment;
  }
  return { names: [...files.keys()], read: (name) => read(file, files.get(name)) };
}

async function read(file, { method, size, at }) {
  const local = new DataView(await file.slice(at, at + 30).arrayBuffer());
  const start = at + 30 + local.getUint16(26, true) + local.getUint16(28, true);
  const content = file.slice(start, start + size);
  if (method === 0) return content;
  return new Response(content.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
}
