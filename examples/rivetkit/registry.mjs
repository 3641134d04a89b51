// A counter, with a little of everything that RivetKit gives an actor.
import { actor, event, queue, setup } from "rivetkit";
import { z } from "zod";

const counter = actor({
  state: { count: 0, lives: 0, alarms: 0, sockets: 0 },
  events: { changed: event(), rang: event() },
  queues: { orders: queue() },
  options: { sleepTimeout: 30_000 },

  onWake: (c) => {
    c.state.lives += 1;
  },

  actions: {
    add: (c, amount = 1) => {
      c.state.count += z.number().int().parse(amount);
      c.broadcast("changed", c.state.count);
      return c.state.count;
    },
    addTo: (c, key, amount) => c.client().counter.getOrCreate([key]).add(amount),
    look: (c) => ({ id: c.actorId, key: c.key, ...c.state }),
    ringIn: async (c, ms) => {
      await c.schedule.after(ms, "ring", "a ring");
    },
    ring: (c, message) => {
      c.state.alarms += 1;
      c.broadcast("rang", { message, alarms: c.state.alarms, lives: c.state.lives });
    },
    nap: (c) => {
      c.sleep();
    },
    retire: (c) => {
      c.destroy();
    },
  },

  // Takes one order after the other. Waiting for one keeps no actor awake; an order wakes it.
  run: async (c) => {
    for await (const order of c.queue.iter({ completable: true })) {
      c.state.count += order.body.amount;
      await order.complete({ count: c.state.count });
    }
  },

  onRequest: async (c, request) => {
    const { pathname, search } = new URL(request.url);
    if (request.method !== "POST") return Response.json({ pathname, search, count: c.state.count });
    const body = await request.bytes();
    return new Response(body, { status: 201, headers: { "x-method": request.method, "x-count": `${c.state.count}` } });
  },

  onWebSocket: (c, socket) => {
    c.state.sockets += 1;
    socket.addEventListener("message", ({ data }) => {
      if (data === "bye") socket.close(4001, "as you wish");
      else socket.send(data);
    });
  },
});

/** Return the registry for an engine, in the pool of that name, serverless at `url` or else as a runner. */
export function registryOf({ endpoint, namespace, token, pool, url }) {
  return setup({
    use: { counter },
    endpoint,
    namespace,
    token,
    noWelcome: true,
    runner: { runnerName: pool, totalSlots: 100 },
    serverless: url && { configureRunnerPool: { name: pool, url, requestLifespan: 300, slotsPerRunner: 100 } },
  });
}
