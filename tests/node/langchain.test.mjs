// LangChain.js against the gateway that GATEWAY_URL names: it recognizes errors by words of their message.

import assert from "node:assert/strict";
import test from "node:test";

import { ContextOverflowError } from "@langchain/core/errors";
import { ChatOpenAI } from "@langchain/openai";

const gateway = (territory, more = {}) =>
  new ChatOpenAI({
    model: "assistant",
    apiKey: process.env.GATEWAY_KEY,
    maxRetries: 0,
    ...more,
    configuration: { baseURL: `${process.env.GATEWAY_URL}/v1`, defaultHeaders: { "cf-ipcountry": territory } },
  });

const errorOf = async (call) => {
  try {
    await call();
  } catch (error) {
    return error;
  }
  assert.fail("LangChain.js raised nothing");
};

test("an answer is whole", async () => {
  const answer = await gateway("DE").invoke("Hello!");
  assert.ok(answer.content);
  assert.ok(answer.usage_metadata.total_tokens > 0);
});

// The gateway's provider in the United States refuses every prompt as too long.
test("a context overflow is recognized", async () => {
  assert.ok(ContextOverflowError.isInstance(await errorOf(() => gateway("US").invoke("Hello!"))));
});

test("a context overflow is recognized in a stream", async () => {
  const error = await errorOf(async () => {
    for await (const _ of await gateway("US").stream("Hello!"));
  });
  assert.ok(ContextOverflowError.isInstance(error));
});

// The gateway's provider in Hong Kong refuses every prompt by its content filter.
test("a content filter is an invalid request and no context overflow", async () => {
  const error = await errorOf(() => gateway("HK").invoke("Hello!"));
  assert.equal(error.status, 400);
  assert.equal(error.code, "content_filter");
  assert.match(error.message, /rejected as a result of the safety system/);
  assert.ok(!ContextOverflowError.isInstance(error));
});

test("an unknown key and an unknown assistant are recognized", async () => {
  const key = await errorOf(() => gateway("DE", { apiKey: "wrong" }).invoke("Hello!"));
  assert.equal(key.lc_error_code, "MODEL_AUTHENTICATION");
  const model = await errorOf(() => gateway("DE", { model: "asistant" }).invoke("Hello!"));
  assert.equal(model.lc_error_code, "MODEL_NOT_FOUND");
});

test("a blocked location keeps its status and its code", async () => {
  const error = await errorOf(() => gateway("CU").invoke("Hello!"));
  assert.equal(error.status, 451);
  assert.equal(error.code, "region_blocked");
});
