// Use responses of the official JavaScript client of the OpenAI API against a running Penstock.
//
// Usage: responses.mjs BASE_URL FAULTS_URL, with the client in the working directory's node_modules

import assert from "node:assert/strict";

import { client, Engine, run } from "./rig.mjs";

const engine = new Engine(process.argv[3]);
const CHAT = "sim-chat";
const TOOLS = [{ type: "function", name: "weather", parameters: { type: "object", properties: { text: { type: "string" } } }, strict: false }];

const responses = (options = {}) => client(options).responses;
const create = (asked, options) => responses(options).create({ model: CHAT, max_output_tokens: 8, ...asked });
const refused = (asking, status, code) => assert.rejects(asking, (e) => e.status === status && (!code || e.code === code));

async function all(stream, enough = () => false) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (enough(events)) break; // which hangs up
  }
  return events;
}

const textOf = (events) => events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta).join("");

function rising(events) {
  events.forEach((e, i) => assert.ok(i === 0 || e.sequence_number > events[i - 1].sequence_number, `${e.type} is ${e.sequence_number}`));
}

async function poll(id) {
  for (let i = 0; i < 300; i++) {
    const answer = await responses().retrieve(id);
    if (!["queued", "in_progress"].includes(answer.status)) return answer;
    await new Promise((wait) => setTimeout(wait, 100));
  }
  assert.fail(`${id} does not end`);
}

async function begin(input, tokens) {
  const [first] = await all(await create({ input, background: true, stream: true, max_output_tokens: tokens }), () => true);
  return first.response.id;
}

await run({
  async whole() {
    const answer = await create({ input: "hello", instructions: "be brief", metadata: { a: "b" } });
    assert.equal(answer.status, "completed");
    assert.equal(answer.output_text.split(" ").length, 8);
    assert.deepEqual(answer.metadata, { a: "b" });
    assert.deepEqual((await responses().retrieve(answer.id)).output, answer.output);
  },

  async streamed() {
    const events = await all(await create({ input: "a story", stream: true }));
    rising(events);
    assert.equal(events[0].type, "response.created");
    assert.equal(events[0].sequence_number, 0);
    assert.equal(events.at(-1).type, "response.completed");
    const final = await responses().stream({ model: CHAT, input: "a story", max_output_tokens: 8 }).finalResponse();
    assert.equal(final.output_text, textOf(events));
  },

  async tools() {
    const answer = await create({ input: "weather?", tools: TOOLS });
    const [call] = answer.output;
    assert.equal(call.name, "weather");
    const final = await responses().stream({ model: CHAT, input: "weather?", tools: TOOLS, max_output_tokens: 8 }).finalResponse();
    assert.equal(final.output[0].arguments, call.arguments);
    const following = await create({ input: [{ type: "function_call_output", call_id: call.call_id, output: "rain" }], previous_response_id: answer.id, tools: TOOLS });
    assert.ok(following.output_text);
    const parsed = await responses().parse({ model: CHAT, input: "weather?", tools: [{ ...TOOLS[0], strict: true }], max_output_tokens: 8 });
    assert.ok(parsed.output[0].parsed_arguments.text);
  },

  async background() {
    const answer = await create({ input: "in the background", background: true });
    assert.equal(answer.status, "queued");
    assert.equal((await poll(answer.id)).output_text.split(" ").length, 8);
    await refused(create({ input: "x", background: true, store: false }), 400);
  },

  async resumed() {
    const begun = await create({ input: "a long story", background: true, stream: true, max_output_tokens: 60 });
    const events = await all(begun, (had) => had.filter((e) => e.type === "response.output_text.delta").length === 5);
    const { id } = events[0].response;
    events.push(...await all(await responses().retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number })));
    rising(events);
    const ended = await poll(id);
    assert.equal(textOf(events), ended.output_text);
    assert.deepEqual(await all(await responses().retrieve(id, { stream: true })), events);
    assert.equal((await responses().stream({ response_id: id, starting_after: 4 }).finalResponse()).output_text, ended.output_text);
  },

  async interrupted() {
    await engine.fault({ match: "breaks", action: "cut", after: 2, count: 1 }, async () => {
      const events = [];
      await assert.rejects(async () => {
        for await (const event of await create({ input: "breaks", background: true, stream: true })) events.push(event);
      }, (e) => e.code === "generation_interrupted");
      const { id } = events[0].response;
      const rest = await all(await responses().retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number }));
      rising([...events, ...rest]);
      assert.equal(rest[0].type, "response.in_progress");
      assert.equal(textOf(rest), (await poll(id)).output_text);
    });
  },

  async cancelled() {
    const id = await begin("never mind", 2000);
    assert.equal((await responses().cancel(id)).status, "cancelled");
    assert.equal((await responses().retrieve(id)).status, "cancelled");
    await refused(responses().cancel((await create({ input: "x" })).id), 400);
  },

  async deleted() {
    const { id } = await create({ input: "forget it" });
    await responses().delete(id);
    await refused(responses().retrieve(id), 404);
    await refused(create({ input: "y", previous_response_id: id }), 404, "previous_response_not_found");
  },

  async inputItems() {
    const { id } = await create({ input: [0, 1, 2].map((i) => ({ role: "user", content: `number ${i}` })) });
    const texts = [];
    for await (const item of responses().inputItems.list(id, { limit: 2, order: "asc" })) texts.push(item.content[0].text);
    assert.deepEqual(texts, ["number 0", "number 1", "number 2"]);
  },

  async errors() {
    await refused(create({ model: "nobody", input: "x" }), 404, "model_not_found");
    await refused(create({ input: "x", tools: [{ type: "web_search" }] }), 400);
    await engine.fault({ match: "refused", status: 422 }, () => refused(create({ input: "refused" }), 422, "rejected"));
  },
});
