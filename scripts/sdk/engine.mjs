// Use the official JavaScript client of the OpenAI API against a Penstock whose engine is a real one.
//
// Usage: engine.mjs BASE_URL MODEL, with the client in the working directory's node_modules

import assert from "node:assert/strict";

import { ask, client, OpenAI, run } from "./rig.mjs";

const MODEL = process.argv[3];

await run({
  async chat() {
    const { data, response } = await client().chat.completions.create({ model: MODEL, messages: ask("What is a mill?"), max_tokens: 24 }).withResponse();
    assert.equal(data.object, "chat.completion");
    assert.ok(data.choices[0].message.content);
    assert.ok(["stop", "length"].includes(data.choices[0].finish_reason));
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.match(response.headers.get("x-task-id"), /^task_/);
  },

  async stream() {
    let text = "", finish = null, usage = null;
    for await (const chunk of await client().chat.completions.create({ model: MODEL, messages: ask("What is a mill?"), max_tokens: 24, stream: true, stream_options: { include_usage: true } })) {
      usage = chunk.usage ?? usage;
      for (const choice of chunk.choices) {
        text += choice.delta.content ?? "";
        finish = choice.finish_reason ?? finish;
      }
    }
    assert.ok(text);
    assert.ok(["stop", "length"].includes(finish));
    assert.ok(usage.completion_tokens > 0);
  },

  async streamHelper() {
    const stream = client().chat.completions.stream({ model: MODEL, messages: ask("Hi"), max_tokens: 400, stop: ["?", "."], temperature: 0, logprobs: true });
    let text = "";
    stream.on("content", (delta) => { text += delta; });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, text);
    assert.equal(final.choices[0].logprobs.content.map((i) => i.token).join(""), text);
  },

  async completions() {
    const answer = await client().completions.create({ model: MODEL, prompt: ["One, two,", "A, B,"], max_tokens: 4 });
    assert.deepEqual(answer.choices.map((c) => c.index), [0, 1]);
  },

  async stopped() {
    const stream = await client().chat.completions.create({ model: MODEL, messages: ask("Tell a long story."), max_tokens: 900, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break; // the client aborts its request
    }
    assert.ok(stream.controller.signal.aborted);
  },

  async refused() {
    const c = client({ maxRetries: 0 });
    await assert.rejects(c.embeddings.create({ model: MODEL, input: "this engine has none" }), (e) => e.status >= 400 && e.status < 500 && e.status !== 501 && Boolean(e.type));
    await assert.rejects(c.chat.completions.create({ model: MODEL, messages: ask("long ".repeat(3000)), max_tokens: 4 }), (e) => e instanceof OpenAI.BadRequestError);
  },
});
