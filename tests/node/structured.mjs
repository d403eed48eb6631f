// The Vercel AI SDK's objects from every region, against the demo that GATEWAY_URL names.
// tests/e2e/test_parse_everywhere.py runs it.

import assert from "node:assert/strict";
import test from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, streamObject } from "ai";
import { z } from "zod";

const schema = z.object({ name: z.string(), inhabitants: z.number().int() });

for (const territory of process.env.TERRITORIES.split(",")) {
  test(`generateObject and streamObject return the same in ${territory}`, async () => {
    const model = createOpenAICompatible({
      name: "gateway",
      baseURL: `${process.env.GATEWAY_URL}/v1`,
      apiKey: "any",
      headers: { "cf-ipcountry": territory },
      supportsStructuredOutputs: true,
    })("assistant");
    const asked = { model, schema, prompt: "Name a city, as JSON." };
    const { object } = await generateObject(asked);
    assert.deepEqual(schema.parse(object), object);
    const stream = streamObject(asked);
    let last;
    for await (const partial of stream.partialObjectStream) last = partial;
    assert.deepEqual(await stream.object, object);
    assert.deepEqual(last, object);
  });
}
