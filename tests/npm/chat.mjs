// Vercel's AI SDK with OpenRouter's provider and the OpenAI-compatible one, and OpenAI's SDK in conversations, unmodified.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateImage, generateText, streamText } from "ai";
import OpenAI from "openai";

const [address, token] = process.argv.slice(2);
const model = "gemini-3-pro-image";
const baseURL = `${address}/v1`;
const openai = new OpenAI({ baseURL, apiKey: token });
const openrouter = createOpenRouter({ baseURL, apiKey: token });
const compatible = createOpenAICompatible({ name: "banana", baseURL, apiKey: token, includeUsage: true });
const isJpeg = (bytes) =>
  Buffer.from(bytes)
    .subarray(0, 3)
    .equals(Buffer.from([0xff, 0xd8, 0xff]));
const decoded = (url) => Buffer.from(url.replace("data:image/jpeg;base64,", ""), "base64");

async function check(name, act) {
  await act();
  console.log(`ok ${name}`);
}

await check("openai chats, with the picture sent back", async () => {
  const first = await openai.chat.completions.create({ model, messages: [{ role: "user", content: "a banana" }] });
  const [{ message }] = first.choices;
  assert.ok(isJpeg(decoded(message.images[0].image_url.url)));
  const messages = [{ role: "user", content: "a banana" }, message, { role: "user", content: "at night" }];
  const second = await openai.chat.completions.create({ model, messages });
  assert.equal(second.choices[0].finish_reason, "stop");
});

await check("openai streams a chat", async () => {
  const options = { model, messages: [{ role: "user", content: "x" }], stream_options: { include_usage: true } };
  const chunks = [];
  for await (const chunk of await openai.chat.completions.create({ ...options, stream: true })) chunks.push(chunk);
  const images = chunks.flatMap((chunk) => chunk.choices[0]?.delta.images ?? []);
  assert.ok(isJpeg(decoded(images[0].image_url.url)));
  assert.equal(chunks.at(-1).usage.completion_tokens, 1350);
});

await check("openai responds, as typed events and in the background", async () => {
  const asked = { model: "gpt-5.5", input: "a banana", tools: [{ type: "image_generation" }] };
  const made = await openai.responses.create(asked);
  assert.ok(isJpeg(Buffer.from(made.output[0].result, "base64")));
  const events = [];
  for await (const event of await openai.responses.create({ ...asked, stream: true })) events.push(event.type);
  assert.deepEqual(events.slice(-2), ["response.output_item.done", "response.completed"]);
  let polled = await openai.responses.create({ ...asked, background: true });
  while (["queued", "in_progress"].includes(polled.status)) polled = await openai.responses.retrieve(polled.id);
  assert.equal(polled.status, "completed");
});

await check("openrouter's provider gives the picture as a file", async () => {
  const made = await generateText({ model: openrouter(`google/${model}`), prompt: "a banana" });
  assert.equal(made.text, "Here it is.");
  assert.ok(isJpeg(made.files[0].uint8Array));
  assert.equal(made.providerMetadata.openrouter.usage.totalTokens, 1358);
});

await check("openrouter's provider streams", async () => {
  const streamed = streamText({ model: openrouter(model, { usage: { include: true } }), prompt: "a banana" });
  const types = [];
  for await (const part of streamed.fullStream) {
    assert.notEqual(part.type, "error", String(part.error));
    types.push(part.type);
  }
  assert.ok(types.includes("file"));
  assert.ok(isJpeg((await streamed.files)[0].uint8Array));
});

await check("openrouter's provider starts from a picture, and goes on", async () => {
  const first = await generateText({ model: openrouter(model), prompt: "a banana" });
  const image = { type: "image", image: first.files[0].uint8Array, mediaType: "image/jpeg" };
  const messages = [
    { role: "user", content: [{ type: "text", text: "like this" }, image] },
    ...first.response.messages,
    { role: "user", content: "at night" },
  ];
  const second = await generateText({ model: openrouter(model), messages });
  assert.ok(isJpeg(second.files[0].uint8Array));
});

await check("openrouter's provider makes images", async () => {
  const made = await generateImage({
    model: openrouter.imageModel(model),
    prompt: "a banana",
    aspectRatio: "16:9",
  });
  assert.ok(isJpeg(made.image.uint8Array));
});

await check("the compatible provider makes and edits images", async () => {
  const made = await generateImage({
    model: compatible.imageModel(model),
    prompt: "a banana",
    n: 2,
    size: "1024x1024",
  });
  assert.equal(made.images.length, 2);
  const prompt = { text: "at night", images: [made.image.uint8Array] };
  assert.ok(isJpeg((await generateImage({ model: compatible.imageModel(model), prompt })).image.uint8Array));
});

await check("the compatible provider chats in words", async () => {
  const made = await generateText({ model: compatible(model), prompt: "a banana" });
  assert.equal(made.text, "Here it is.");
  const streamed = streamText({ model: compatible(model), prompt: "a banana" });
  assert.equal(await streamed.text, "Here it is.");
  assert.equal((await streamed.usage).outputTokens, 1350);
});

await check("their own exceptions come out, and nothing is multiplied", async () => {
  const messages = [{ role: "user", content: "[fault:400] x" }];
  await assert.rejects(openai.chat.completions.create({ model, messages }), OpenAI.BadRequestError);
  await assert.rejects(generateText({ model: openrouter(model), prompt: "[fault:400] x" }), { statusCode: 400 });
  await assert.rejects(
    openai.chat.completions.create({ model, messages, tools: [{ type: "function", function: { name: "f" } }] }),
    OpenAI.BadRequestError,
  );
});
