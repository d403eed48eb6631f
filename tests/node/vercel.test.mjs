// The Vercel AI SDK with its provider for OpenAI-compatible servers, against the gateway that GATEWAY_URL names.

import assert from "node:assert/strict";
import test from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const gateway = (territory) =>
  createOpenAICompatible({
    name: "gateway",
    baseURL: `${process.env.GATEWAY_URL}/v1`,
    apiKey: process.env.GATEWAY_KEY,
    headers: { "cf-ipcountry": territory },
    includeUsage: true,
    supportsStructuredOutputs: true,
  })("assistant");

for (const territory of ["DE", "JP", "HK"]) {
  test(`generateText and streamText say the same in ${territory}`, async () => {
    const model = gateway(territory);
    const whole = await generateText({ model, prompt: "Hello!" });
    const stream = streamText({ model, prompt: "Hello!" });
    let said = "";
    for await (const piece of stream.textStream) said += piece;
    assert.equal(said, whole.text);
    assert.ok(said);
    assert.equal(await stream.finishReason, "stop");
    assert.ok((await stream.usage).totalTokens > 0);
  });

  test(`a tool is called and answered in ${territory}`, async () => {
    const asked = [];
    const { text, steps } = await generateText({
      model: gateway(territory),
      prompt: "What is the weather in Oslo?",
      stopWhen: stepCountIs(3),
      tools: {
        get_weather: tool({
          description: "The weather of a city",
          inputSchema: z.object({ city: z.string() }),
          execute: async ({ city }) => {
            asked.push(city);
            return "-3 °C, snow";
          },
        }),
      },
    });
    assert.equal(asked.length, 1);
    assert.equal(steps.length, 2);
    assert.match(text, /snow/);
  });

  test(`an object has the shape that was asked for in ${territory}`, async () => {
    const schema = z.object({ name: z.string(), inhabitants: z.number().int() });
    const { output } = await generateText({
      model: gateway(territory),
      prompt: "Name a city, as JSON.",
      output: Output.object({ schema }),
    });
    assert.deepEqual(schema.parse(output), output);
  });
}

test("an error keeps our message", async () => {
  await assert.rejects(generateText({ model: gateway("CU"), prompt: "Hello!", maxRetries: 0 }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 451);
    assert.match(error.message, /not available in/);
    return true;
  });
});
