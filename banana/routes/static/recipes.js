// The code that makes a picture again: with curl, with OpenAI's SDK, with Google's.
import { extensionOf } from "./pictures.js";
import { hasToken } from "./service.js";

const DEFAULT_MODEL = "gemini-3-pro-image";
const shell = (word) => `'${word.replaceAll("'", "'\\''")}'`;
const apiKey = () => (hasToken() ? "TOKEN" : "any");

// Pairs of a name and the code. `picture` is as the history keeps it.
export function recipes(picture) {
  const files = picture.pictures.map((file, number) => file.name ?? `picture${number + 1}.png`);
  return [
    ["curl", curl(picture, files)],
    ["Python, OpenAI", openai(picture, files)],
    ["Python, Google", google(picture, files)],
  ];
}

function curl({ prompt, ratio, size, model, blob }, files) {
  const given = Object.entries({ prompt, aspect_ratio: ratio, image_size: size, model }).filter(([, value]) => value);
  const fields = given.map(([field, value]) => `-F ${shell(`${field}=${value}`)}`);
  const form = [...fields, ...files.map((file) => `-F ${shell(`image=@${file}`)}`)].join(" ");
  const json = `-H 'Content-Type: application/json' -d ${shell(JSON.stringify(Object.fromEntries(given)))}`;
  const token = hasToken() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const body = files.length ? form : json;
  return `curl ${location.origin}/generate${token} -H 'Accept: image/*' ${body} -o picture.${extensionOf(blob.type)}`;
}

function openai({ prompt, model }, files) {
  const opened = files.map((file) => `open(${JSON.stringify(file)}, "rb")`).join(", ");
  const given = `model="${model || DEFAULT_MODEL}", prompt=${JSON.stringify(prompt)}`;
  const call = files.length ? `edit(${given}, image=[${opened}])` : `generate(${given})`;
  return `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key="${apiKey()}")
picture = client.images.${call}.data[0]`;
}

function google({ prompt, ratio, size, model }, files) {
  const contents = [JSON.stringify(prompt), ...files.map((file) => `PIL.Image.open(${JSON.stringify(file)})`)];
  const settings = [ratio && `aspect_ratio="${ratio}"`, size && `image_size="${size}"`].filter(Boolean).join(", ");
  const config = `types.GenerateContentConfig(image_config=types.ImageConfig(${settings}))`;
  const imports = [
    files.length ? "import PIL.Image" : "",
    "from google import genai",
    settings ? "from google.genai import types" : "",
  ];
  const given = [
    `model="${model || DEFAULT_MODEL}"`,
    `contents=[${contents.join(", ")}]`,
    settings && `config=${config}`,
  ];
  return `${imports.filter(Boolean).join("\n")}

client = genai.Client(api_key="${apiKey()}", http_options={"base_url": "${location.origin}"})
answer = client.models.generate_content(${given.filter(Boolean).join(", ")})`;
}
