// @anthropic-ai/sdk for Node, unchanged, against the gateway that GATEWAY_URL names.
// What each place's provider does in these tests is set by tests/e2e/test_node.py.

import assert from "node:assert/strict";
import test from "node:test";

import Anthropic from "@anthropic-ai/sdk";

const at = (territory) =>
  new Anthropic({
    apiKey: process.env.GATEWAY_KEY,
    baseURL: process.env.GATEWAY_URL,
    defaultHeaders: { "cf-ipcountry": territory },
    maxRetries: 0,
  });
const model = "assistant";
const hello = { model, max_tokens: 2000, messages: [{ role: "user", content: "Hello!" }] };
const weather = {
  name: "get_weather",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

for (const territory of ["DE", "JP", "HK"]) {
  test(`a whole answer and a stream have the same text in ${territory}`, async () => {
    const { messages } = at(territory);
    const answer = await messages.create(hello);
    assert.equal(answer.stop_reason, "end_turn");
    const stream = messages.stream(hello);
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    assert.equal(text, answer.content.find(({ type }) => type === "text").text);
    assert.equal(final.stop_reason, "end_turn");
    assert.ok(final.usage.input_tokens > 0 && final.usage.output_tokens > 0);
  });

  test(`a stream calls a tool and reads its result in ${territory}`, async () => {
    const { messages } = at(territory);
    const options = { ...hello, tools: [weather], thinking: { type: "enabled", budget_tokens: 1500 } };
    const question = { role: "user", content: "What is the weather in Oslo?" };
    const asked = await messages.stream({ ...options, messages: [question] }).finalMessage();
    assert.equal(asked.stop_reason, "tool_use");
    const results = asked.content
      .filter(({ type }) => type === "tool_use")
      .map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "-3 °C, snow" }));
    const history = [question, { role: "assistant", content: asked.content }, { role: "user", content: results }];
    const answer = await messages.stream({ ...options, messages: history }).finalMessage();
    assert.match(answer.content.at(-1).text, /snow/);
  });
}

test("tokens are counted", async () => {
  const { input_tokens } = await at("DE").messages.countTokens({ model, messages: hello.messages });
  assert.ok(input_tokens > 0);
});

test("assistants are listed", async () => {
  const ids = [];
  for await (const { id } of at("DE").models.list({ limit: 1 })) ids.push(id);
  assert.ok(ids.includes(model));
});

test("a stream that breaks is an error", async () => {
  await assert.rejects(at("US").messages.stream(hello).finalMessage(), /stream_interrupted/);
});

test("an error has the status of the gateway", async () => {
  await assert.rejects(at("CU").messages.create(hello), (error) => {
    assert.equal(error.status, 451);
    assert.equal(error.error.error.code, "region_blocked");
    return true;
  });
});
