// The JavaScript SDKs of OpenAI and Google, unmodified, against the service at the address given; prints a line a check.
import assert from "node:assert/strict";
import { GoogleGenAI } from "@google/genai";
import OpenAI, { toFile } from "openai";

const [address, token] = process.argv.slice(2);
const model = "gemini-3-pro-image";
const openai = new OpenAI({ baseURL: `${address}/v1`, apiKey: token });
const google = new GoogleGenAI({ apiKey: token, httpOptions: { baseUrl: address } });
const isJpeg = (base64) =>
  Buffer.from(base64, "base64")
    .subarray(0, 3)
    .equals(Buffer.from([0xff, 0xd8, 0xff]));

async function check(name, act) {
  await act();
  console.log(`ok ${name}`);
}

await check("openai generates two pictures", async () => {
  const made = await openai.images.generate({ model: "gpt-image-1", prompt: "a banana", n: 2 });
  assert.equal(made.data.length, 2);
  assert.ok(made.data.every((picture) => isJpeg(picture.b64_json)));
});

await check("openai edits one picture and three", async () => {
  const { data } = await openai.images.generate({ model, prompt: "a banana" });
  const file = () => toFile(Buffer.from(data[0].b64_json, "base64"), "banana.jpg", { type: "image/jpeg" });
  for (const image of [await file(), [await file(), await file(), await file()]]) {
    const made = await openai.images.edit({ model, prompt: "at night", image });
    assert.ok(isJpeg(made.data[0].b64_json));
  }
});

await check("openai streams", async () => {
  const events = [];
  for await (const event of await openai.images.generate({ model, prompt: "x", stream: true })) events.push(event);
  assert.deepEqual(
    events.map((event) => event.type),
    ["image_generation.completed"],
  );
});

await check("openai's own exceptions come out", async () => {
  const stranger = new OpenAI({ baseURL: `${address}/v1`, apiKey: "wrong" });
  await assert.rejects(stranger.images.generate({ model, prompt: "x" }), OpenAI.AuthenticationError);
  await assert.rejects(openai.images.generate({ model, prompt: "[fault:image-safety]" }), OpenAI.BadRequestError);
  await assert.rejects(openai.images.generate({ model: "gemini-1", prompt: "x" }), OpenAI.NotFoundError);
  await assert.rejects(openai.images.generate({ model, prompt: "[fault:reset]" }), { status: 424 });
  await assert.rejects(
    openai.images.generate({ model, prompt: "x", background: "transparent" }),
    OpenAI.BadRequestError,
  );
});

await check("google generates from words and from a picture", async () => {
  const made = await google.models.generateContent({ model, contents: "a banana" });
  const { data } = made.candidates[0].content.parts[0].inlineData;
  assert.ok(isJpeg(data));
  const contents = ["at night", { inlineData: { mimeType: "image/jpeg", data } }];
  assert.ok(
    isJpeg((await google.models.generateContent({ model, contents })).candidates[0].content.parts[0].inlineData.data),
  );
});

await check("google streams", async () => {
  const parts = [];
  for await (const chunk of await google.models.generateContentStream({ model, contents: "x" })) {
    parts.push(chunk.candidates[0].content.parts[0]);
  }
  assert.equal(parts.length, 2);
  assert.ok(isJpeg(parts[1].inlineData.data));
});

await check("google's own exceptions come out", async () => {
  const stranger = new GoogleGenAI({ apiKey: "wrong", httpOptions: { baseUrl: address } });
  await assert.rejects(stranger.models.generateContent({ model, contents: "x" }), { status: 401 });
  await assert.rejects(google.models.generateContent({ model: "gemini-1", contents: "x" }), { status: 404 });
  await assert.rejects(google.models.generateContent({ model, contents: "[fault:400]" }), { status: 400 });
});
