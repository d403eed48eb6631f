// The official OpenAI SDK for Node, unchanged: transcriptions and speech.
// tests/e2e/test_node.py runs it against a gateway whose assistant has them.

import assert from "node:assert/strict";
import test from "node:test";

import OpenAI, { toFile } from "openai";

const { GATEWAY_KEY: apiKey, GATEWAY_URL: url } = process.env;
const model = "assistant";
const openai = new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0, defaultHeaders: { "cf-ipcountry": "CN" } });

test("what is spoken is written down, whole and as a stream", async () => {
  const spoken = await openai.audio.speech.create({ model, voice: "anna", input: "Hello.", response_format: "wav" });
  const bytes = Buffer.from(await spoken.arrayBuffer());
  assert.equal(bytes.subarray(0, 4).toString(), "RIFF");
  const { text } = await openai.audio.transcriptions.create({ model, file: await toFile(bytes, "speech.wav") });
  assert.match(text, /^Simulated words number \d+\.$/);
  let said = "";
  let done;
  const file = await toFile(bytes, "speech.wav");
  for await (const event of await openai.audio.transcriptions.create({ model, file, stream: true })) {
    said += event.type === "transcript.text.delta" ? event.delta : "";
    done = event.type === "transcript.text.done" ? event.text : done;
  }
  assert.deepEqual([said, done], [text, text]);
});
