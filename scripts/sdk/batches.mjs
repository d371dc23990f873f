// Use files and batches through the official JavaScript client, against a running Penstock.
//
// Usage: batches.mjs BASE_URL FAULTS_URL, with the client in the working directory's node_modules

import assert from "node:assert/strict";

import { client as connect, OpenAI, run, toFile } from "./rig.mjs";

const client = connect();
const LINES = 60;

const line = (n) =>
  JSON.stringify({ custom_id: `request-${n}`, method: "POST", url: "/v1/completions", body: { model: "sim-chat", prompt: `line ${n}`, max_tokens: 3 } });

async function ended(batch) {
  for (let i = 0; i < 1200; i++) {
    batch = await client.batches.retrieve(batch.id);
    if (["completed", "failed", "expired", "cancelled"].includes(batch.status)) return batch;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`still ${batch.status}`);
}

await run({
  async filesAndBatches() {
    const content = Array.from({ length: LINES }, (_, n) => line(n)).join("\n");
    const input = await client.files.create({ file: await toFile(Buffer.from(content), "requests.jsonl"), purpose: "batch" });
    assert.equal(input.bytes, content.length);
    assert.equal(await (await client.files.content(input.id)).text(), content);

    const batch = await ended(await client.batches.create({ input_file_id: input.id, endpoint: "/v1/completions", completion_window: "24h" }));
    assert.equal(batch.status, "completed");
    assert.deepEqual(batch.request_counts, { total: LINES, completed: LINES, failed: 0 });

    const lines = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n").map((text) => JSON.parse(text));
    assert.deepEqual(lines.map((l) => l.custom_id).sort(), Array.from({ length: LINES }, (_, n) => `request-${n}`).sort());
    for (const l of lines) {
      assert.equal(l.response.status_code, 200);
      assert.equal(l.response.body.object, "text_completion");
    }

    const seen = [];
    for await (const file of client.files.list({ limit: 1 })) seen.push(file.id); // page by page
    assert.ok(seen.includes(input.id) && seen.includes(batch.output_file_id) && new Set(seen).size === seen.length);
    await client.files.delete(input.id);
    await assert.rejects(client.files.retrieve(input.id), OpenAI.NotFoundError);
  },
});
