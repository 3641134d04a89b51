// What a client of the RivetKit example can expect of an engine, through RivetKit's own client.
//
// node rivetkit_scenarios.mjs '{"endpoint": …, "pool": …, "token": …}' NAME… plays the scenarios named, all at once, and prints
// one JSON line each: {"name", "error": null or text}.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";

import { createClient } from "rivetkit/client";

const MOMENT_MS = 30_000; // longer than anything takes on a busy machine
const { endpoint, pool, token, namespace = "default" } = JSON.parse(process.argv[2]);
const names = process.argv.slice(3);
const newClient = (options) => createClient({ endpoint, namespace, token, runnerName: pool, ...options });
const client = newClient();

const scenarios = {
  async an_action_answers() {
    const counter = fresh();
    assert.equal(await counter.add(2), 2);
    assert.equal(await counter.add(3), 5);
    const { id, key, count, lives } = await counter.look();
    assert.deepEqual([id, key, count, lives], [await counter.resolve(), counter.testKey, 5, 1]);
  },

  async an_error_of_an_action_is_told() {
    const counter = fresh();
    await assert.rejects(counter.add("many"), isError("rivetkit", "internal_error"));
    await assert.rejects(counter.unheardOf(), isError("action", "not_found"));
    assert.equal(await counter.add(1), 1);
  },

  async every_encoding_is_understood() {
    for (const encoding of ["json", "cbor", "bare"]) {
      const counter = newClient({ encoding }).counter.getOrCreate([randomUUID()]);
      assert.equal(await counter.add(7), 7);
      const connection = counter.connect();
      assert.equal(await connection.add(7), 14);
      await connection.dispose();
    }
  },

  async an_actor_calls_another() {
    const [caller, callee] = [fresh(), fresh()];
    assert.equal(await caller.addTo(callee.testKey[0], 4), 4);
    await asleep(callee);
    assert.equal(await caller.addTo(callee.testKey[0], 5), 9);
    assert.deepEqual([(await caller.look()).count, (await callee.look()).lives], [0, 2]);
  },

  async connected_clients_hear_events() {
    const counter = fresh();
    const connections = [counter.connect(), counter.connect()];
    const heard = connections.map((connection) => collected(connection, "changed"));
    await Promise.all(connections.map((connection) => connection.look()));
    for (let number = 1; number <= 20; number++) await connections[number % 2].add(1);
    assert.equal(await counter.add(1), 21);
    const all = Array.from({ length: 21 }, (_, index) => index + 1);
    for (const numbers of heard) await eventually(() => assert.deepEqual(numbers, all));
    await Promise.all(connections.map((connection) => connection.dispose()));
  },

  async state_outlives_sleep() {
    const counter = fresh();
    await counter.add(41);
    for (let life = 1; life <= 3; life++) {
      await asleep(counter);
      const { count, lives } = await counter.look();
      assert.deepEqual([count, lives], [41, life + 1]);
    }
  },

  async a_connection_outlives_sleep() {
    const counter = fresh();
    const connection = counter.connect();
    const heard = collected(connection, "changed");
    const closes = [];
    connection.onClose(() => closes.push("closed"));
    assert.equal(await connection.add(1), 1);
    await asleep(counter);
    assert.equal(await counter.add(1), 2);
    await eventually(() => assert.deepEqual(heard, [1, 2]));
    await asleep(counter);
    assert.equal(await connection.add(1), 3); // the connection's own message wakes it
    await eventually(() => assert.deepEqual(heard, [1, 2, 3]));
    assert.equal((await connection.look()).lives, 3);
    assert.deepEqual(closes, []);
    await connection.dispose();
  },

  async a_schedule_fires() {
    const connection = fresh().connect();
    const heard = collected(connection, "rang");
    await connection.ringIn(300);
    await eventually(() => assert.deepEqual(heard, [{ message: "a ring", alarms: 1, lives: 1 }]));
    await connection.dispose();
  },

  async a_schedule_wakes_a_sleeping_actor() {
    const counter = fresh();
    await counter.ringIn(3_000);
    await asleep(counter);
    await eventually(async () => assert.ok((await listed(counter)).connectable_ts !== null)); // nobody has called it
    const { alarms, lives } = await counter.look();
    assert.deepEqual([alarms, lives], [1, 2]);
  },

  async a_queue_is_worked_off_in_order() {
    const counter = fresh();
    for (let number = 1; number <= 5; number++) await counter.send("orders", { amount: number });
    const done = await workedOff(counter, { amount: 5 });
    assert.deepEqual(done, { status: "completed", response: { count: 20 } });
    await asleep(counter);
    const woken = await workedOff(counter, { amount: 1 });
    assert.deepEqual(woken, { status: "completed", response: { count: 21 } });
  },

  async raw_http_reaches_the_actor() {
    const counter = fresh();
    await counter.add(3);
    const got = await counter.fetch("some/path?q=ä%20b");
    assert.equal(got.status, 200);
    assert.deepEqual(await got.json(), { pathname: "/some/path", search: "?q=%C3%A4%20b", count: 3 });
    const body = new Uint8Array(300_000).map((_, index) => index % 251);
    await asleep(counter);
    const posted = await counter.fetch("/", { method: "POST", body });
    assert.deepEqual([posted.status, posted.headers.get("x-method"), posted.headers.get("x-count")], [201, "POST", "3"]);
    assert.deepEqual(new Uint8Array(await posted.arrayBuffer()), body);
  },

  async a_raw_websocket_reaches_the_actor() {
    const counter = fresh();
    await counter.add(1);
    await asleep(counter);
    const socket = await counter.webSocket("/room");
    socket.binaryType = "arraybuffer";
    const [heard, closed] = [[], Promise.withResolvers()];
    socket.addEventListener("message", ({ data }) => heard.push(typeof data === "string" ? data : new Uint8Array(data)));
    socket.addEventListener("close", ({ code, reason }) => closed.resolve([code, reason]));
    if (socket.readyState !== 1) await new Promise((resolve) => socket.addEventListener("open", resolve));
    const said = ["a", "ä€𝄞", new Uint8Array([0, 255, 7]), "x".repeat(60_000)];
    for (const message of said) socket.send(message);
    await eventually(() => assert.deepEqual(heard, said));
    socket.send("bye");
    assert.deepEqual(await within(closed.promise), [4001, "as you wish"]);
    const { sockets, lives } = await counter.look();
    assert.deepEqual([sockets, lives], [1, 2]);
  },

  async everyone_who_gets_or_creates_gets_the_same_actor() {
    const key = [randomUUID(), "with/slash", "ä"];
    const handles = Array.from({ length: 30 }, () => newClient().counter.getOrCreate(key));
    const counts = await Promise.all(handles.map((handle) => handle.add(1)));
    assert.deepEqual(counts.toSorted((a, b) => a - b), counts.map((_, index) => index + 1));
    assert.equal(new Set(await Promise.all(handles.map((handle) => handle.resolve()))).size, 1);
    assert.equal(await client.counter.get(key).resolve(), await handles[0].resolve());
  },

  async one_of_those_who_create_a_key_wins() {
    const key = [randomUUID()];
    const tries = await Promise.allSettled(Array.from({ length: 10 }, () => client.counter.create(key)));
    const refused = tries.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
    assert.equal(refused.length, 9);
    const winner = await client.counter.get(key).resolve();
    for (const { group, code, metadata } of refused) {
      assert.deepEqual([group, code, metadata?.existing_actor_id], ["actor", "duplicate_key", winner]);
    }
  },

  async a_destroyed_actor_is_not_found() {
    const counter = fresh();
    await counter.add(1);
    const id = await counter.resolve();
    const destroyed = client.counter.getForId(id);
    const connection = destroyed.connect();
    const gone = Promise.withResolvers();
    connection.onClose(gone.resolve);
    await connection.look();
    await destroyed.retire();
    await within(gone.promise);
    assert.equal(connection.isConnected, false);
    await connection.dispose();
    assert.deepEqual(await list(`actor_ids=${id}`), []);
    assert.ok((await list(`actor_ids=${id}&include_destroyed=true`))[0].destroy_ts !== null);
    const answer = await fetch(`${await destroyed.getGatewayUrl()}/request/`);
    const { group, code } = await answer.json();
    assert.deepEqual([answer.status, group, code], [404, "actor", "not_found"]);
    await assert.rejects(destroyed.look(), isError("actor", "not_found"));
    await assert.rejects(destroyed.fetch("/"), isError("actor", "not_found"));
    await assert.rejects(destroyed.webSocket("/"), isError("actor", "not_found"));
    await assert.rejects(destroyed.send("orders", { amount: 1 }), isError("actor", "not_found"));
    await assert.rejects(client.counter.get(counter.testKey).look(), isError("actor", "not_found"));
  },

  async a_handle_of_a_key_makes_the_next_actor_of_it() {
    const counter = fresh();
    await counter.add(1);
    const id = await counter.resolve();
    await counter.retire();
    await eventually(async () => assert.deepEqual(await list(`actor_ids=${id}`), []));
    const answer = await counter.fetch("/"); // the handle still remembers the id
    assert.deepEqual([answer.status, (await answer.json()).count], [200, 0]);
    assert.notEqual(await counter.resolve(), id);
  },

  async a_pool_without_runners_starts_one() {
    assert.deepEqual(await runners(), []);
    const counter = fresh();
    assert.equal(await counter.add(1), 1);
    assert.equal((await runners()).length, 1);
    await asleep(counter);
    await eventually(async () => assert.deepEqual(await runners(), [])); // nothing to do, nobody kept
    assert.equal(await counter.add(1), 2);
    assert.equal((await counter.look()).lives, 2);
  },

  async nobody_gets_in_without_a_good_token() {
    for (const stranger of [undefined, "wrong"]) {
      const handle = newClient({ token: stranger }).counter.getOrCreate([randomUUID()]);
      await assert.rejects(handle.add(1), isError("api", "forbidden"));
    }
  },
};

function fresh() {
  const key = [randomUUID()];
  const handle = client.counter.getOrCreate(key);
  return new Proxy(handle, { get: (target, name) => (name === "testKey" ? key : target[name]) });
}

/** Have an actor sleep, and wait until the engine says it does. */
async function asleep(counter) {
  await counter.nap();
  await eventually(async () => {
    const { sleep_ts, connectable_ts } = await listed(counter);
    assert.ok(sleep_ts !== null && connectable_ts === null);
  });
}

/**
 * Send an order and return what comes of it. RivetKit 2.2.1 may overlook a message that comes while it deletes the one before,
 * until the next one comes: after a while, send some of no amount.
 */
async function workedOff(counter, order) {
  const outcome = counter.send("orders", order, { wait: true, timeout: MOMENT_MS });
  while (await Promise.race([outcome.then(() => false), pause(1_000, true)])) await counter.send("orders", { amount: 0 });
  return outcome;
}

async function listed(counter) {
  const [actor] = await list(`actor_ids=${await counter.resolve()}`);
  return actor;
}

const list = async (query) => (await api(`/actors?namespace=${namespace}&${query}`)).actors;
const runners = async () => (await api(`/runners?namespace=${namespace}&name=${pool}`)).runners;

async function api(path) {
  const answer = await fetch(endpoint + path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
  assert.equal(answer.status, 200);
  return answer.json();
}

function collected(connection, name) {
  const heard = [];
  connection.on(name, (value) => heard.push(value));
  return heard;
}

/** Return a check that an error is this one, and a failure that shows it if not. */
function isError(group, code) {
  return (error) => {
    assert.deepEqual([error.group, error.code], [group, code]);
    return true;
  };
}

async function eventually(check) {
  for (const deadline = Date.now() + MOMENT_MS; ; await pause(50)) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
  }
}

function within(promise, ms = MOMENT_MS) {
  const late = pause(ms, null, { ref: false }).then(() => assert.fail("nothing happened in time"));
  return Promise.race([promise, late]);
}

async function play(name) {
  try {
    await within(scenarios[name](), 2 * MOMENT_MS);
    console.log(JSON.stringify({ name, error: null }));
  } catch (error) {
    console.log(JSON.stringify({ name, error: error.stack ?? String(error) }));
  }
}

await Promise.all(names.map(play));
process.exit();
