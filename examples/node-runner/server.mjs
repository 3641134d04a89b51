/**
 * A runner for Torpor built on the unmodified npm client `@rivetkit/engine-runner`.
 *
 *   node server.mjs --port 3000                        a serverless endpoint: GET /start, GET /metadata
 *   node server.mjs --runner --endpoint http://127.0.0.1:6420 --pool node --slots 100
 *
 * Every lifecycle event is one JSON line on stdout, `{"event", "at": ms since the epoch, …}`.
 */
import { createServer } from "node:http";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { createRunner } from "./actor.mjs";
import { loadClient } from "./client.mjs";
import { log } from "./log.mjs";

const { values: options } = parseArgs({
  options: {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "3000" }, // 0: any free one, named in the "listening" line
    runner: { type: "boolean", default: false },
    endpoint: { type: "string", default: "http://127.0.0.1:6420" },
    namespace: { type: "string", default: "default" },
    pool: { type: "string", default: "node" },
    slots: { type: "string", default: "100" },
    version: { type: "string", default: "1" },
    key: { type: "string" }, // only for client releases that do not draw their own
    token: { type: "string" },
    "client-dir": { type: "string", default: dirname(fileURLToPath(import.meta.url)) },
  },
});

const client = await loadClient(options["client-dir"]);
const running = new Set();

/** Start one runner and return it; `runner.connected` and `runner.stopped` are promises of its two ends. */
function startRunner(settings) {
  const runner = createRunner(client, { version: Number(options.version), ...settings });
  running.add(runner);
  runner.stopped.then(() => running.delete(runner));
  runner.start();
  return runner;
}

// What GET /start does, changed by POST /control/{go,hold,fail}: a way to look at an engine that waits.
let mode = "go";
let release = () => {};
let released = Promise.resolve();

function control(wanted) {
  release();
  mode = wanted;
  released = wanted === "hold" ? new Promise((resolve) => (release = resolve)) : Promise.resolve();
}

/** Serve one GET /start: a runner lives in this process for as long as the response does (and its actors need). */
async function serveStart(request, response) {
  const header = (name) => request.headers[`x-rivet-${name}`];
  const pool = header("runner-name");
  log("start_request", { pool, slots: Number(header("total-slots")), namespace: header("namespace-name"), mode });
  let runner = null;
  let aborted = false;
  response.on("close", () => {
    aborted = true;
    if (runner && !response.writableEnded) {
      log("start_aborted", { pool, runnerId: runner.id() });
      runner.shutdown();
    }
  });
  if (mode === "fail") {
    response.writeHead(500, { "content-type": "text/plain" }).end("told to fail\n");
    return;
  }
  await released;
  if (aborted) return;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.flushHeaders();
  runner = startRunner({
    endpoint: header("endpoint"),
    namespace: header("namespace-name"),
    token: header("token"),
    pool,
    slots: Number(header("total-slots")),
  });
  const ping = setInterval(() => response.write("event: ping\ndata:\n\n"), 1000);
  await Promise.race([runner.connected, runner.stopped]);
  const init = runner.initPacket();
  if (init) response.write(`data: ${init}\n\n`);
  await runner.stopped;
  clearInterval(ping);
  response.end();
}

function serve(request, response) {
  const { pathname } = new URL(request.url, "http://endpoint");
  const answer = (status, body) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  if (request.method === "GET" && pathname === "/start") return serveStart(request, response);
  if (request.method === "GET" && pathname === "/metadata") {
    const runner = { version: Number(options.version) };
    return answer(200, { runtime: "rivetkit", version: client.version, runner, actorNames: { counter: { metadata: {} } } });
  }
  const told = pathname.match(/^\/control\/(go|hold|fail)$/);
  if (request.method === "POST" && told) {
    control(told[1]);
    return answer(200, { mode });
  }
  return answer(404, { error: "no such path" });
}

let leaving = false;
async function leave(signal) {
  if (leaving) return;
  leaving = true;
  log("leaving", { signal });
  for (const runner of running) runner.shutdown();
  await Promise.all([...running].map((runner) => runner.stopped));
  process.exit(0);
}
process.on("SIGTERM", leave);
process.on("SIGINT", leave);

if (options.runner) {
  const { endpoint, namespace, token, key, pool, slots } = options;
  startRunner({ endpoint, namespace, token, key, pool, slots: Number(slots) }).stopped.then(() => process.exit(0));
} else {
  const server = createServer((request, response) => {
    Promise.resolve(serve(request, response)).catch((error) => {
      log("endpoint_error", { message: String(error) });
      response.destroy();
    });
  });
  server.listen(Number(options.port), options.host, () => {
    log("listening", { port: server.address().port, client: client.version });
  });
}
