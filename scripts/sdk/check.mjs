// Use the official JavaScript client of the OpenAI API against a running Penstock.
//
// Usage: check.mjs BASE_URL FAULTS_URL, with the client in the working directory's node_modules

import assert from "node:assert/strict";
import { createServer } from "node:http";

import { ask, BASE, client, Engine, OpenAI, run } from "./rig.mjs";

const engine = new Engine(process.argv[3]);
const CHAT = "sim-chat";
const EMBED = "sim-embed";
const TOOLS = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: { text: { type: "string" } } } } }];

await run({
  async chat() {
    const { data, response } = await client().chat.completions.create({ model: CHAT, messages: ask("hello"), max_tokens: 5, n: 2 }).withResponse();
    assert.deepEqual(data.choices.map((c) => c.index), [0, 1]);
    assert.equal(data.choices[0].message.content.split(" ").length, 5);
    assert.equal(data.usage.completion_tokens, 10);
    assert.match(response.headers.get("x-task-id"), /^task_/);
  },

  // A call with the memory of its session is answered as one that brings all that was said.
  async sessions() {
    const talk = { model: CHAT, max_tokens: 5, session_id: `sdk ${crypto.randomUUID()}`, memory: true };
    const { message } = (await client().chat.completions.create({ ...talk, messages: ask("one") })).choices[0];
    let text = "";
    for await (const chunk of await client().chat.completions.create({ ...talk, messages: ask("two"), stream: true })) {
      for (const choice of chunk.choices) text += choice.delta.content ?? "";
    }
    const whole = [...ask("one"), { role: "assistant", content: message.content }, ...ask("two")];
    assert.equal(text, (await client().chat.completions.create({ model: CHAT, max_tokens: 5, messages: whole })).choices[0].message.content);
  },

  async stream() {
    const asked = { model: CHAT, messages: ask("a story"), max_tokens: 12 };
    const whole = (await client().chat.completions.create(asked)).choices[0].message.content;
    let text = "", finish = null, usage = null;
    for await (const chunk of await client().chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } })) {
      usage = chunk.usage ?? usage;
      for (const choice of chunk.choices) {
        text += choice.delta.content ?? "";
        finish = choice.finish_reason ?? finish;
      }
    }
    assert.equal(text, whole);
    assert.equal(finish, "stop");
    assert.equal(usage.completion_tokens, 12);
  },

  async streamHelper() {
    const final = await client().chat.completions.stream({ model: CHAT, messages: ask("weather?"), tools: TOOLS, max_tokens: 3 }).finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, "tool_calls");
    assert.equal(final.choices[0].message.tool_calls[0].function.name, "weather");
    assert.ok(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments).text);
  },

  async completions() {
    const asked = { model: CHAT, prompt: ["one", "two"], n: 2, max_tokens: 3 };
    const whole = await client().completions.create(asked);
    const texts = ["", "", "", ""];
    for await (const chunk of await client().completions.create({ ...asked, stream: true })) {
      for (const choice of chunk.choices) texts[choice.index] += choice.text;
    }
    assert.deepEqual(texts, whole.choices.map((c) => c.text));
  },

  async embeddings() {
    const plain = await client().embeddings.create({ model: EMBED, input: ["a", "b"], encoding_format: "float" });
    const packed = await client().embeddings.create({ model: EMBED, input: ["a", "b"] }); // base64 on the wire
    for (const [i, one] of plain.data.entries()) {
      assert.equal(one.embedding.length, 64);
      one.embedding.forEach((x, j) => assert.ok(Math.abs(x - packed.data[i].embedding[j]) < 1e-6));
    }
  },

  async models() {
    const ids = [];
    for await (const m of client().models.list()) ids.push(m.id);
    assert.deepEqual(ids, [CHAT, EMBED]);
  },

  async errors() {
    const c = client({ maxRetries: 0 });
    await assert.rejects(c.chat.completions.create({ model: "nobody", messages: ask("x") }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found" && e.param === "model");
    await assert.rejects(c.chat.completions.create({ model: CHAT, messages: [] }), (e) => e instanceof OpenAI.BadRequestError && e.param === "messages");
    await engine.fault({ match: "refused", status: 422 }, () =>
      assert.rejects(c.chat.completions.create({ model: CHAT, messages: ask("refused") }), (e) => e instanceof OpenAI.UnprocessableEntityError));
  },

  async late() {
    await engine.fault({ match: "too slow", action: "slow", delay: "3s" }, async () => {
      const before = (await engine.executions()).total;
      await assert.rejects(client().chat.completions.create({ model: CHAT, messages: ask("too slow") }, { timeout: 1500 }), (e) => e.status === 504);
      assert.equal((await engine.executions()).total, before + 1);
    });
  },

  async retries() {
    await engine.fault({ match: "lossy", action: "slow", delay: "2s" }, async () => {
      const before = (await engine.executions()).total;
      let calls = 0;
      const lossy = (url, init) => fetch(url, calls++ < 2 ? { ...init, signal: AbortSignal.timeout(300) } : init);
      const { response } = await client({ fetch: lossy, maxRetries: 3 }).chat.completions.create({ model: CHAT, messages: ask("lossy"), max_tokens: 2 }).withResponse();
      const after = await engine.executions();
      assert.equal(calls, 3);
      assert.equal(after.total, before + 1);
      assert.equal(after.counts[response.headers.get("x-task-id")], 1);
    });
  },

  async interrupted() {
    await engine.fault({ match: "breaks", action: "cut", after: 2, count: 1 }, () =>
      assert.rejects(async () => {
        for await (const _ of await client().chat.completions.create({ model: CHAT, messages: ask("breaks"), max_tokens: 6, stream: true })) { /* read on */ }
      }, (e) => e.code === "generation_interrupted"));
  },

  async moderations() {
    const verdict = await client().moderations.create({ input: ["have a nice day", "I hate this"] });
    assert.deepEqual(verdict.results.map((one) => one.flagged), [false, true]);
    assert.equal(verdict.results[1].categories.hate, true);
  },

  async webhooks() {
    const told = [], waiting = [];
    const next = () => new Promise((resolve) => { told.length ? resolve(told.shift()) : waiting.push(resolve); });
    const tell = (one) => { waiting.length ? waiting.shift()(one) : told.push(one); };
    const receiver = createServer((request, response) => {
      let body = "";
      request.on("data", (piece) => { body += piece; });
      request.on("end", () => { response.writeHead(204).end(); tell([body, request.headers]); });
    });
    await new Promise((listening) => receiver.listen(0, "127.0.0.1", listening));
    try {
      const { data: { secret } } = await (await fetch(BASE + "/v1/webhooks/secret")).json();
      const task = { model: CHAT, payload: { text: "tell me" }, webhook: { url: `http://127.0.0.1:${receiver.address().port}/hook` } };
      const accepted = await (await fetch(BASE + "/v1/inference", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(task) })).json();
      const [body, headers] = await next();
      const event = await client().webhooks.unwrap(body, headers, secret);
      assert.equal(event.type, "task.succeeded");
      assert.equal(event.data.id, accepted.data.task_id);
      await assert.rejects(client().webhooks.unwrap(body + " ", headers, secret));
      const answer = await client().responses.create({ model: CHAT, input: "and me", background: true, webhook: task.webhook });
      const completed = await client().webhooks.unwrap(...(await next()), secret);
      assert.equal(completed.type, "response.completed");
      assert.equal(completed.data.id, answer.id);
      const line = { custom_id: "1", method: "POST", url: "/v1/chat/completions", body: { model: CHAT, messages: [{ role: "user", content: "in a batch" }] } };
      const requests = await client().files.create({ file: new File([JSON.stringify(line)], "requests.jsonl"), purpose: "batch" });
      const order = { input_file_id: requests.id, endpoint: "/v1/chat/completions", completion_window: "1h", webhook: task.webhook };
      const batch = await client().batches.create(order);
      const ended = await client().webhooks.unwrap(...(await next()), secret);
      assert.equal(ended.type, "batch.completed");
      assert.equal(ended.data.id, batch.id);
    } finally {
      receiver.close();
    }
  },
});
