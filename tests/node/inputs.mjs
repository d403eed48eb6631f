// The clients of OpenAI and Google for Node, unchanged: embeddings and moderations.
// tests/e2e/test_node.py runs it against a gateway whose assistant has them.

import assert from "node:assert/strict";
import test from "node:test";

import { GoogleGenAI } from "@google/genai";
import OpenAI from "openai";

const { GATEWAY_KEY: apiKey, GATEWAY_URL: url } = process.env;
const model = "assistant";

for (const [territory, length] of [["CN", 1024], ["DE", 1536], ["JP", 3072]]) {
  const headers = { "cf-ipcountry": territory };
  const openai = new OpenAI({ apiKey, baseURL: `${url}/v1`, defaultHeaders: headers });

  test(`vectors of OpenAI's client in ${territory}`, async () => {
    // Without encoding_format, the client asks for base64 and decodes it.
    const { data, usage } = await openai.embeddings.create({ model, input: ["one", "two"] });
    const numbers = await openai.embeddings.create({ model, input: "two", encoding_format: "float" });
    assert.deepEqual(data.map((entry) => entry.index), [0, 1]);
    assert.equal(data[1].embedding.length, length);
    data[1].embedding.forEach((value, place) => {
      assert.ok(Math.abs(value - numbers.data[0].embedding[place]) < 1e-6);
    });
    assert.ok(usage.total_tokens > 0);
  });

  test(`vectors of Google's client in ${territory}`, async () => {
    const google = new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url, headers } });
    const config = { outputDimensionality: 64, taskType: "RETRIEVAL_QUERY" };
    const { embeddings } = await google.models.embedContent({ model, contents: ["one", "two"], config });
    const same = await openai.embeddings.create({ model, input: "two", dimensions: 64, encoding_format: "float" });
    assert.equal(embeddings.length, 2);
    embeddings[1].values.forEach((value, place) => {
      assert.ok(Math.abs(value - same.data[0].embedding[place]) < 1e-6);
    });
  });
}

test("another vector space is refused with its code", async () => {
  const headers = { "cf-ipcountry": "CN", "x-gateway-embedding-space": "text-embedding-3-small@1536" };
  const openai = new OpenAI({ apiKey, baseURL: `${url}/v1`, defaultHeaders: headers });
  await assert.rejects(openai.embeddings.create({ model, input: "one" }), { status: 409, code: "other_embedding_space" });
});

test("verdicts of OpenAI's client", async () => {
  const openai = new OpenAI({ apiKey, baseURL: `${url}/v1`, defaultHeaders: { "cf-ipcountry": "DE" } });
  const { results } = await openai.moderations.create({ model, input: ["fine", "simulated-harm"] });
  assert.deepEqual(results.map((result) => result.flagged), [false, true]);
});
