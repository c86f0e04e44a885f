// Short ways to find and make elements.

export const $ = (id) => document.getElementById(id);

// element("a", {href: "/", onclick: act}, "text", child): attributes as they stand in HTML, `on…` are listeners; what is null is left out.
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) created.addEventListener(name.slice(2), value);
    else created.setAttribute(name, value);
  }
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

export const button = (label, onclick, attributes = {}) =>
  element("button", { type: "button", class: "quiet", onclick, ...attributes }, label);

// A button with an icon; `label` is its accessible name and tooltip.
export const iconButton = (name, label, onclick, attributes = {}) =>
  button(icon(name), onclick, { "aria-label": label, title: label, class: "icon", ...attributes });

const PATHS = {
  check: "M4 12.5l5 5L20 6.5",
  close: "M5 5l14 14M19 5L5 19",
  down: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  star: "M12 3.5l2.6 5.4 5.9.8-4.3 4.1 1 5.8-5.2-2.8-5.2 2.8 1-5.8L3.5 9.7l5.9-.8z",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon-${name}`);
  svg.append(path);
  return svg;
}

// A unique name; crypto.randomUUID is not there on plain http.
export const randomId = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
