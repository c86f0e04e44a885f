// Server-sent events of a fetch's body: yields {name, data}. Each piece of text is looked at once, however long a picture is.
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = [];
  let last = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    let text = value;
    for (;;) {
      const split = end(last, text);
      if (split < 0) break;
      const event = parsed(held.join("") + text.slice(0, split));
      held = [];
      last = "";
      text = text.slice(split);
      if (event) yield event;
    }
    if (text) {
      held.push(text);
      last = text.at(-1);
    }
  }
}

// Where in `text` an event ends, the blank line included, or -1; `last` is the character before it.
function end(last, text) {
  if (last === "\n" && text.startsWith("\n")) return 1;
  const blank = text.indexOf("\n\n");
  return blank < 0 ? -1 : blank + 2;
}

function parsed(block) {
  const lines = block.split("\n");
  const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  return field("event") && { name: field("event"), data: JSON.parse(field("data")) };
}
