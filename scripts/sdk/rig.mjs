// What the checks of the official JavaScript client share. The client is that of the working directory's
// node_modules; a check is a function of the object that run is given.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
export const { default: OpenAI, toFile } = await import(pathToFileURL(require.resolve("openai")));

export const BASE = process.argv[2]; // where the ingress listens, without /v1

export const client = (options = {}) => new OpenAI({ baseURL: BASE + "/v1", apiKey: "any", ...options });
export const ask = (text) => [{ role: "user", content: text }];

// Engine is the simulated one: faults to switch on, and its count of what it ran.
export class Engine {
  constructor(url) {
    this.url = url;
  }

  // fault has the engine fail as the switches say while during runs.
  async fault(switches, during) {
    const set = await fetch(this.url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(switches) });
    assert.equal(set.status, 201);
    try {
      return await during();
    } finally {
      await fetch(this.url, { method: "DELETE" });
    }
  }

  async executions() {
    return (await fetch(this.url.replace("/sim/faults", "/sim/executions"))).json();
  }
}

// run calls all checks and exits with a status that says whether all passed.
export async function run(checks) {
  let failed = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log("ok  ", name);
    } catch (e) {
      failed++;
      console.log("FAIL", name, e);
    }
  }
  process.exit(failed ? 1 : 0);
}
