// The Responses API with the official OpenAI SDK and the Vercel AI SDK for Node, both unchanged, against the gateway
// that GATEWAY_URL names. What each place's provider does in these tests is set by tests/e2e/test_node.py.

import assert from "node:assert/strict";
import test from "node:test";

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { ResponsesWS } from "openai/resources/responses/ws";
import { z } from "zod";

const baseURL = `${process.env.GATEWAY_URL}/v1`;
const apiKey = process.env.GATEWAY_KEY;
const at = (territory) =>
  new OpenAI({ baseURL, apiKey, maxRetries: 0, defaultHeaders: { "cf-ipcountry": territory } });
const model = "assistant";
const weather = {
  type: "function",
  name: "get_weather",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

for (const territory of ["DE", "JP", "HK"]) {
  test(`a whole answer and a stream have the same text in ${territory}`, async () => {
    const client = at(territory);
    const whole = await client.responses.create({ model, input: "Hello!" });
    assert.equal(whole.status, "completed");
    assert.ok(whole.usage.total_tokens > 0);
    const stream = client.responses.stream({ model, input: "Hello!" });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    assert.equal(kinds.at(-1), "response.completed");
    assert.equal((await stream.finalResponse()).output_text, whole.output_text);
  });

  test(`a tool loop completes in ${territory}`, async () => {
    const input = [{ role: "user", content: "What is the weather in Oslo?" }];
    const first = await at(territory).responses.create({ model, input, tools: [weather] });
    const calls = first.output.filter((item) => item.type === "function_call");
    assert.ok(calls.length);
    const outputs = calls.map(({ call_id }) => ({ type: "function_call_output", call_id, output: "snow" }));
    const second = await at(territory).responses.create({
      model,
      input: [...input, ...first.output, ...outputs],
      tools: [weather],
    });
    assert.match(second.output_text, /snow/);
  });

  test(`a schema is parsed in ${territory}`, async () => {
    const City = z.object({ name: z.string(), inhabitants: z.number() });
    const text = { format: zodTextFormat(City, "city") };
    const answer = await at(territory).responses.parse({ model, input: "Name a city, as JSON.", text });
    assert.ok(answer.output_parsed.name);
  });

  test(`the Vercel AI SDK calls a tool and answers in ${territory}`, async () => {
    const gateway = createOpenAI({ baseURL, apiKey, headers: { "cf-ipcountry": territory } });
    const settings = {
      model: gateway(model),
      prompt: "What is the weather in Oslo?",
      maxRetries: 0,
      stopWhen: stepCountIs(3),
      providerOptions: { openai: { store: false } },
      tools: {
        get_weather: tool({ inputSchema: z.object({ city: z.string() }), execute: async () => "snow" }),
      },
    };
    assert.match((await generateText(settings)).text, /snow/);
    assert.match(await streamText(settings).text, /snow/);
  });
}

test("a stream that breaks off ends with a failure", async () => {
  const stream = await at("US").responses.create({ model, input: "Hello!", stream: true });
  let last;
  for await (const event of stream) last = event;
  assert.equal(last.type, "response.failed");
  assert.equal(last.response.error.code, "stream_interrupted");
});

test("a conversation over one WebSocket", async () => {
  const socket = new ResponsesWS(at("DE"), { headers: { "cf-ipcountry": "DE" } });
  const ask = (message) =>
    new Promise((resolve, reject) => {
      socket.once("response.completed", (event) => resolve(event.response));
      socket.once("error", reject);
      socket.send({ type: "response.create", model, ...message });
    });
  const first = await ask({ input: "Hello!" });
  const second = await ask({ input: "And now?", previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
  await assert.rejects(ask({ input: "And then?", previous_response_id: "resp_1" }), (error) =>
    JSON.stringify(error.error).includes("previous_response_not_found"),
  );
  socket.close();
});

test("state at a provider is refused by name", async () => {
  const asked = at("DE").responses.create({ model, input: "Hi", previous_response_id: "resp_1" });
  await assert.rejects(asked, (error) => error.status === 400 && error.param === "previous_response_id");
});
