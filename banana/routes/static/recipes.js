// The code that makes a picture again: with curl, with OpenAI's SDK, with Google's. It runs as it stands.
import * as costs from "./costs.js";
import { extensionOf } from "./pictures.js";
import { hasToken } from "./service.js";

const DEFAULT_MODEL = "gemini-3-pro-image";
const shell = (word) => `'${word.replaceAll("'", "'\\''")}'`;
const python = (word) => JSON.stringify(word);

// Pairs of a name and the code.
export function recipes(item) {
  const files = item.inputs.map(({ name }) => name);
  const output = `picture.${extensionOf(item.type)}`;
  const named = { ...item, model: item.model || costs.modelOf("")?.id || DEFAULT_MODEL };
  return [
    ["curl", curl(item, files, output)],
    ["Python, OpenAI", openai(named, files, output)],
    ["Python, Google", google(named, files, output)],
  ];
}

function curl({ prompt, ratio, size, model, tier }, files, output) {
  const token = hasToken() ? [`-H "Authorization: Bearer $TOKEN"`] : [];
  const named = { prompt, aspect_ratio: ratio, image_size: size, model, service_tier: tier };
  const given = Object.entries(named).filter(([, value]) => value);
  // --form-string: a prompt that begins with @ or < is no file.
  const fields = given.map(([field, value]) => `--form-string ${shell(`${field}=${value}`)}`);
  const pictures = files.map((file) => `-F ${shell(`image=@"${file.replaceAll(/["\\]/g, "\\$&")}"`)}`);
  const lines = [
    `curl ${location.origin}/generate`,
    ...token,
    "-H 'Accept: image/*'",
    ...fields,
    ...pictures,
    `-o ${output}`,
  ];
  return lines.join(" \\\n  ");
}

const apiKey = () => (hasToken() ? 'os.environ["TOKEN"]' : '"any"');
const imports = (...names) => [...(hasToken() ? ["os"] : []), ...names].sort().map((name) => `import ${name}`);

function openai({ prompt, ratio, size, model, tier, width, height }, files, output) {
  const given = [`model=${python(model)}`, `prompt=${python(prompt)}`];
  // OpenAI names pixels: those that this picture has.
  if ((ratio || size) && width) given.push(`size="${width}x${height}"`);
  if (tier) given.push(`extra_body={"service_tier": "${tier}"}`);
  if (files.length) given.push(`image=[${files.map((file) => `open(${python(file)}, "rb")`).join(", ")}]`);
  return `${imports("base64").join("\n")}

from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key=${apiKey()})
result = client.images.${files.length ? "edit" : "generate"}(
    ${given.join(",\n    ")},
)
with open("${output}", "wb") as file:
    file.write(base64.b64decode(result.data[0].b64_json))`;
}

function google({ prompt, ratio, size, model, tier }, files, output) {
  const settings = [ratio && `aspect_ratio="${ratio}"`, size && `image_size="${size}"`].filter(Boolean).join(", ");
  const contents = [python(prompt), ...files.map((file) => `PIL.Image.open(${python(file)})`)];
  const config = `response_modalities=["IMAGE"]${settings && `, image_config=types.ImageConfig(${settings})`}${tier && `, service_tier="${tier}"`}`;
  const needed = [...imports(), ...(files.length ? ["import PIL.Image"] : [])];
  return `${[...needed, "from google import genai", "from google.genai import types"].join("\n")}

client = genai.Client(api_key=${apiKey()}, http_options={"base_url": "${location.origin}"})
response = client.models.generate_content(
    model=${python(model)},
    contents=[${contents.join(", ")}],
    config=types.GenerateContentConfig(${config}),
)
with open("${output}", "wb") as file:
    file.write(next(part.inline_data.data for part in response.parts if part.inline_data))`;
}
