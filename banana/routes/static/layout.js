// Justified rows: whole pictures in their own shapes, rows as wide as the page.
const GAP = 6;
const HEADING = 44;
const NARROWEST = 0.5;
const WIDEST = 4;

export const heightFor = (width) => (width < 600 ? 150 : width < 1100 ? 200 : 230);

// `groups` are {title, entries}, an entry has a `shape`, width by height. Returns {height, boxes}: {entry, x, y, width, height} or {title, y}.
export function arranged(groups, width) {
  const boxes = [];
  const wanted = heightFor(width);
  let y = 0;
  for (const { title, entries } of groups) {
    if (title) {
      boxes.push({ title, y, height: HEADING });
      y += HEADING;
    }
    for (const row of rows(entries, width, wanted)) {
      const gaps = GAP * (row.length - 1);
      const shapes = row.reduce((sum, entry) => sum + shapeOf(entry), 0);
      const full = (width - gaps) / shapes;
      // The last row is not blown up.
      const height = Math.min(full, row.isLast ? wanted : Number.POSITIVE_INFINITY);
      let x = 0;
      for (const entry of row) {
        const wide = shapeOf(entry) * height;
        boxes.push({ entry, x, y, width: wide, height });
        x += wide + GAP;
      }
      y += height + GAP;
    }
  }
  return { boxes, height: y };
}

const shapeOf = ({ shape }) => Math.min(WIDEST, Math.max(NARROWEST, shape));

function* rows(entries, width, wanted) {
  let row = [];
  let shapes = 0;
  for (const entry of entries) {
    const more = shapes + shapeOf(entry);
    if (more * wanted + GAP * row.length < width) {
      row.push(entry);
      shapes = more;
      continue;
    }
    // With it the row is lower than wanted, without it higher: whichever is less.
    const [low, high] = [(width - GAP * row.length) / more, (width - GAP * (row.length - 1)) / shapes];
    const isIn = !row.length || wanted / low <= high / wanted;
    yield isIn ? [...row, entry] : row;
    row = isIn ? [] : [entry];
    shapes = isIn ? 0 : shapeOf(entry);
  }
  if (row.length) yield Object.assign(row, { isLast: true });
}
