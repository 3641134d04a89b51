// The counters of registry.mjs in a process: long-lived (--runner), or one that the engine calls when it needs a runner.
import { parseArgs } from "node:util";

import { serve } from "@hono/node-server";

import { registryOf } from "./registry.mjs";

const { values: options } = parseArgs({
  options: {
    endpoint: { type: "string", default: "http://127.0.0.1:6420" },
    namespace: { type: "string", default: "default" },
    pool: { type: "string", default: "default" },
    port: { type: "string", default: "3000" },
    runner: { type: "boolean", default: false },
  },
});
const engine = { ...options, token: process.env.RIVET_TOKEN };

if (options.runner) {
  registryOf(engine).startRunner();
} else {
  let registry;
  const server = serve(
    { fetch: (request) => registry.handler(request), hostname: "127.0.0.1", port: Number(options.port) },
    ({ port }) => {
      const url = `http://127.0.0.1:${port}/api/rivet`;
      registry = registryOf({ ...engine, url });
      // RivetKit tells the engine about the pool when it serves its first request.
      fetch(`${url}/metadata`).then(() => console.log(`serving ${url}`));
    },
  );
  process.once("SIGTERM", () => server.close()); // RivetKit ends its runners
}
