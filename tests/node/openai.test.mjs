// The official OpenAI SDK for Node, unchanged, against the gateway that GATEWAY_URL names.
// What each place's provider does in these tests is set by tests/e2e/test_node.py.

import assert from "node:assert/strict";
import test from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const at = (territory, more = {}) =>
  new OpenAI({
    baseURL: `${process.env.GATEWAY_URL}/v1`,
    apiKey: process.env.GATEWAY_KEY,
    maxRetries: 0,
    defaultHeaders: { "cf-ipcountry": territory },
    ...more,
  });
const model = "assistant";
const hello = { model, messages: [{ role: "user", content: "Hello!" }] };
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

for (const territory of ["DE", "JP", "HK"]) {
  test(`a whole answer and a stream say the same in ${territory}`, async () => {
    const client = at(territory);
    const { data, response, request_id } = await client.chat.completions.create(hello).withResponse();
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.ok(data.usage.total_tokens > 0);
    assert.equal(request_id, response.headers.get("x-request-id"));
    assert.ok(response.headers.get("x-gateway-deployment"));

    const stream = await client.chat.completions.create({
      ...hello,
      stream: true,
      stream_options: { include_usage: true },
    });
    let said = "";
    let usage;
    for await (const chunk of stream) {
      said += chunk.choices[0]?.delta.content ?? "";
      if (chunk.usage) {
        assert.equal(chunk.choices.length, 0);
        usage = chunk.usage;
      }
    }
    assert.equal(said, data.choices[0].message.content);
    assert.ok(usage.completion_tokens > 0);
  });

  test(`the tool runner goes round in ${territory}`, async () => {
    const asked = [];
    const runner = at(territory).chat.completions.runTools({
      ...hello,
      messages: [{ role: "user", content: "What is the weather in Oslo?" }],
      stream: true,
      tools: [
        {
          type: "function",
          function: {
            ...weather.function,
            parse: JSON.parse,
            function: ({ city }) => {
              asked.push(city);
              return "-3 °C, snow";
            },
          },
        },
      ],
    });
    assert.match(await runner.finalContent(), /snow/);
    assert.equal(asked.length, 1);
    assert.ok((await runner.totalUsage()).total_tokens >= 0);
  });

  test(`a zod schema is parsed in ${territory}`, async () => {
    const City = z.object({ name: z.string(), inhabitants: z.number().int() });
    const answer = await at(territory).chat.completions.parse({
      ...hello,
      messages: [{ role: "user", content: "Name a city, as JSON." }],
      response_format: zodResponseFormat(City, "city"),
    });
    assert.equal(typeof answer.choices[0].message.parsed.inhabitants, "number");
  });
}

test("models are listed and retrieved", async () => {
  const ids = [];
  for await (const entry of at("DE").models.list()) ids.push(entry.id);
  assert.deepEqual(ids, ["assistant", "gpt-4o"]);
  assert.equal((await at("DE").models.retrieve("gpt-4o")).object, "model");
  await assert.rejects(at("DE").models.retrieve("a/b"), OpenAI.NotFoundError);
});

for (const [what, call, kind, status, code] of [
  ["a wrong field", () => at("DE").chat.completions.create({ ...hello, temperature: 9 }), OpenAI.BadRequestError, 400, "invalid_request"],
  ["a wrong key", () => at("DE", { apiKey: "no" }).chat.completions.create(hello), OpenAI.AuthenticationError, 401, "invalid_api_key"],
  ["a wrong model", () => at("DE").chat.completions.create({ ...hello, model: "no" }), OpenAI.NotFoundError, 404, "model_not_found"],
  ["a blocked place", () => at("CU").chat.completions.create(hello), OpenAI.APIError, 451, "region_blocked"],
]) {
  test(`${what} is the SDK's own error`, async () => {
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof kind);
      assert.deepEqual([error.status, error.code], [status, code]);
      assert.ok(error.requestID);
      return true;
    });
  });
}

test("a stream that breaks off is raised", async () => {
  let said = "";
  await assert.rejects(
    async () => {
      const stream = await at("US").chat.completions.create({ ...hello, stream: true });
      for await (const chunk of stream) said += chunk.choices[0].delta.content ?? "";
    },
    (error) => error instanceof OpenAI.APIError && error.code === "stream_interrupted",
  );
  assert.ok(said);
});

test("a stream can be left", async () => {
  const stream = await at("CN").chat.completions.create({ ...hello, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.choices[0].delta.content);
    stream.controller.abort();
    break;
  }
});

test("a request can be aborted", async () => {
  const controller = new AbortController();
  const stream = await at("CN").chat.completions.create({ ...hello, stream: true }, { signal: controller.signal });
  controller.abort();
  await assert.rejects(async () => {
    for await (const _ of stream);
    throw new OpenAI.APIUserAbortError();
  }, OpenAI.APIUserAbortError);
});
