// Short ways to find and make elements.

export const $ = (id) => document.getElementById(id);

// element("a", {href: "/", onclick: act}, "text", child): attributes as they stand in HTML, `on…` are listeners.
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) created.addEventListener(name.slice(2), value);
    else created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

export const button = (label, onclick) => element("button", { type: "button", class: "quiet", onclick }, label);
