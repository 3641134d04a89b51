/** What our actors do, and the runner that hosts them: a counter that can be told to sleep, stop, crash or be slow. */
import { randomUUID } from "node:crypto";

import { log } from "./log.mjs";
import * as shelf from "./sockets.mjs";
import * as storage from "./storage.mjs";

const COUNT_KEY = new TextEncoder().encode("count");

const json = (body, status = 200) => Response.json(body, { status });
const wrap = (text) => Buffer.from(text).toString("base64");
const unwrap = (text) => Buffer.from(text, "base64").toString();
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Create a runner of `client` (see client.mjs), not yet started.
 *
 * settings: endpoint, namespace, pool, slots, version, token?, key?
 * Beside the client's own methods the result has `connected` and `stopped` (promises), `shutdown()`
 * (graceful, once), `id()` and `initPacket()` (base64, undefined before the engine's init).
 */
export function createRunner(client, settings) {
  const lives = new Map(); // actor id -> {generation, count, stopMs} of the life that is running here
  const connected = deferred();
  const stopped = deferred();
  let leaving = false;

  /** Add one to the count kept in the actor's own storage, which outlives its sleep. */
  async function countDurably(actorId) {
    const [stored] = await runner.kvGet(actorId, [COUNT_KEY]);
    const count = stored ? Number(new TextDecoder().decode(stored)) + 1 : 1;
    await runner.kvPut(actorId, [[COUNT_KEY, new TextEncoder().encode(String(count))]]);
    return count;
  }

  async function answer(actorId, request) {
    const url = new URL(request.url);
    const life = lives.get(actorId);
    const about = { actorId, generation: life?.generation, count: life ? ++life.count : 0, pid: process.pid };
    if (life && url.searchParams.has("stop_ms")) life.stopMs = Number(url.searchParams.get("stop_ms"));
    switch (url.pathname) {
      case "/":
        return json(about);
      case "/sleep": // first the intent, then the answer: the engine must deliver both
        log("sleep_intent", { actorId, generation: about.generation });
        runner.sleepActor(actorId);
        return json({ ...about, sleeping: true });
      case "/stop":
        runner.stopActor(actorId);
        return json({ ...about, stopping: true });
      case "/destroy": // releases without destroyActor say OK on every stop that is no sleep, and that destroys
        client.ownsKey ? runner.destroyActor(actorId) : runner.stopActor(actorId);
        return json({ ...about, destroying: true });
      case "/crash": // gone in the middle of the request, without an answer to it; with `ms`, that long after it
        if (url.searchParams.has("ms")) setTimeout(() => runner.forceStopActor(actorId), Number(url.searchParams.get("ms")));
        else runner.forceStopActor(actorId);
        return json(about);
      case "/count":
        return json({ ...about, durable: await countDurably(actorId) });
      case "/storage":
        return json({ ...about, seen: await storage.walk(runner, actorId) });
      case "/alarm":
        about.alarm = Date.now() + Number(url.searchParams.get("ms") ?? 1000);
        runner.setAlarm(actorId, about.alarm);
        return json(about);
      case "/alarm/clear":
        runner.clearAlarm(actorId);
        return json(about);
      case "/length":
        return json({ ...about, bytes: (await request.arrayBuffer()).byteLength });
      case "/slow": // with `before`, only in lives of a lower generation
        if (about.generation < Number(url.searchParams.get("before") ?? Infinity)) {
          log("slow_request", { actorId, generation: about.generation });
          await pause(Number(url.searchParams.get("ms") ?? 1000));
        }
        return json(about);
      case "/echo": {
        const body = await request.text();
        const headers = Object.fromEntries(request.headers);
        return json({ ...about, method: request.method, path: url.pathname + url.search, headers, body });
      }
      case "/mirror": {
        const told = { method: request.method, path: url.pathname + url.search, headers: Object.fromEntries(request.headers) };
        const { status = 200, headers = [] } = JSON.parse(unwrap(request.headers.get("x-return") ?? "e30="));
        const body = status === 204 || status === 304 ? null : await request.arrayBuffer();
        return new Response(body, { status, headers: [...headers, ["x-told", wrap(JSON.stringify(told))]] });
      }
      default:
        return json({ ...about, error: "no such path" }, 404);
    }
  }

  const runner = new client.Runner({
    version: settings.version,
    endpoint: settings.endpoint,
    token: settings.token,
    namespace: settings.namespace,
    runnerName: settings.pool,
    totalSlots: settings.slots,
    prepopulateActorNames: { counter: { metadata: {} } },
    metadata: { client: client.version },
    noAutoShutdown: true, // one process may host several runners: the server decides
    ...(client.ownsKey ? {} : { runnerKey: settings.key ?? randomUUID() }),
    onConnected: () => {
      log("connected", { runnerId: runner.runnerId, pool: settings.pool });
      connected.resolve();
    },
    onDisconnected: (code, reason) => {
      const event = String(reason).startsWith("ws.eviction") ? "evicted" : "disconnected";
      log(event, { runnerId: runner.runnerId, code, reason: String(reason) });
    },
    onShutdown: () => {
      log("shutdown", { runnerId: runner.runnerId });
      stopped.resolve();
    },
    fetch: (_runner, actorId, _gatewayId, _requestId, request) => answer(actorId, request),
    websocket: async (_runner, actorId, socket, gatewayId, requestId, _request, path, headers, hibernatable, restoring) => {
      log("socket", { actorId, path, hibernatable, restoring });
      if (hibernatable && !restoring) shelf.put(actorId, { gatewayId, requestId, path, headers });
      socket.addEventListener("message", (event) => {
        if (!lives.has(actorId)) return; // it has just stopped: not acknowledged, the next life is told again
        socket.send(event.data);
        if (hibernatable) {
          shelf.received(actorId, { gatewayId, requestId }, event.rivetMessageIndex);
          runner.sendHibernatableWebSocketMessageAck(gatewayId, requestId, event.rivetMessageIndex);
        }
      });
      socket.addEventListener("close", (event) => {
        log("socket_closed", { actorId, code: event.code, reason: event.reason });
        shelf.remove(actorId, { gatewayId, requestId });
      });
    },
    hibernatableWebSocket: {
      canHibernate: (_actorId, _gatewayId, _requestId, request) => new URL(request.url).pathname.startsWith("/hibernate"),
    },
    onActorStart: async (actorId, generation, config) => {
      lives.set(actorId, { generation, count: 0, stopMs: 0 });
      log("actor_start", { actorId, generation, name: config.name, key: config.key, runnerId: runner.runnerId });
      await runner.restoreHibernatingRequests(actorId, shelf.of(actorId));
    },
    onActorStop: async (actorId, generation) => {
      log("actor_stopping", { actorId, generation, runnerId: runner.runnerId });
      const stopMs = lives.get(actorId)?.stopMs;
      if (stopMs) await pause(stopMs);
      lives.delete(actorId);
      log("actor_stop", { actorId, generation, runnerId: runner.runnerId });
    },
  });

  return {
    start: () => runner.start(),
    id: () => runner.runnerId,
    initPacket: () => runner.getServerlessInitPacket(),
    connected: connected.promise,
    stopped: stopped.promise,
    shutdown: () => {
      if (!leaving) runner.shutdown(false, false);
      leaving = true;
    },
  };
}

/** A promise and the function that fulfils it (Promise.withResolvers, which Node 20 lacks). */
function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}
