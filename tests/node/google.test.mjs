// @google/genai for Node, unchanged, against the gateway that GATEWAY_URL names.
// What each place's provider does in these tests is set by tests/e2e/test_node.py.

import assert from "node:assert/strict";
import test from "node:test";

import { GoogleGenAI } from "@google/genai";

const at = (territory) =>
  new GoogleGenAI({
    apiKey: process.env.GATEWAY_KEY,
    httpOptions: { baseUrl: process.env.GATEWAY_URL, headers: { "cf-ipcountry": territory } },
  });
const model = "assistant";
const weather = {
  name: "get_weather",
  parametersJsonSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

for (const territory of ["DE", "JP", "HK"]) {
  test(`a whole answer and a stream have the same text in ${territory}`, async () => {
    const { models } = at(territory);
    const answer = await models.generateContent({ model, contents: "Hello!" });
    assert.equal(answer.candidates[0].finishReason, "STOP");
    assert.ok(answer.usageMetadata.totalTokenCount > 0);
    let text = "";
    let last;
    for await (const chunk of await models.generateContentStream({ model, contents: "Hello!" })) {
      text += chunk.text ?? "";
      last = chunk;
    }
    assert.equal(text, answer.text);
    assert.equal(last.candidates[0].finishReason, "STOP");
    assert.ok(last.usageMetadata.totalTokenCount > 0);
  });

  test(`a streamed chat calls a function in ${territory}`, async () => {
    const config = { tools: [{ functionDeclarations: [weather] }] };
    const chat = at(territory).chats.create({ model, config });
    const calls = [];
    for await (const chunk of await chat.sendMessageStream({ message: "What is the weather in Oslo?" })) {
      calls.push(...(chunk.functionCalls ?? []));
    }
    assert.deepEqual(calls.map(({ name }) => name), ["get_weather"]);
    assert.ok(calls[0].args.city);
    const [{ id, name }] = calls;
    const answer = await chat.sendMessage({
      message: [{ functionResponse: { id, name, response: { output: "-3 °C, snow" } } }],
    });
    assert.match(answer.text, /snow/);
  });
}

test("tokens are counted", async () => {
  const { totalTokens } = await at("DE").models.countTokens({ model, contents: "Hello there!" });
  assert.ok(totalTokens > 0);
});

test("a stream that breaks is an error", async () => {
  await assert.rejects(async () => {
    for await (const _ of await at("US").models.generateContentStream({ model, contents: "Hello!" }));
  }, /stream_interrupted|502/);
});

test("an error has the status of the gateway", async () => {
  await assert.rejects(at("CU").models.generateContent({ model, contents: "Hello!" }), (error) => {
    assert.equal(error.status, 451);
    assert.match(error.message, /region_blocked/);
    return true;
  });
});
