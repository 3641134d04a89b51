/** A walk through all that an actor's key-value storage can do. */
const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => (data === null ? null : new TextDecoder().decode(data));
const pairs = (entries) => entries.map(([key, value]) => `${text(key)}=${text(value)}`);

/** Write, read, list and delete what an actor keeps under `walk/`, and return what was seen; it leaves nothing behind. */
export async function walk(runner, actorId) {
  const seen = {};
  const names = ["walk/a", "walk/b", "walk/c", "walk/d"].map(bytes);
  await runner.kvPut(actorId, names.map((name, number) => [name, bytes(String(number))]));
  seen.got = (await runner.kvGet(actorId, [names[2], bytes("walk/none"), names[0]])).map(text);
  seen.prefix = pairs(await runner.kvListPrefix(actorId, bytes("walk/")));
  seen.range = pairs(await runner.kvListRange(actorId, names[0], names[2], true));
  seen.last = pairs(await runner.kvListPrefix(actorId, bytes("walk/"), { reverse: true, limit: 1 }));
  await runner.kvDelete(actorId, [names[0], bytes("walk/none")]);
  if (runner.kvDeleteRange) await runner.kvDeleteRange(actorId, names[1], names[2]);
  else await runner.kvDelete(actorId, [names[1]]); // releases before 2.1.7 cannot delete a range
  seen.left = pairs(await runner.kvListPrefix(actorId, bytes("walk/")));
  seen.refused = await runner.kvPut(actorId, [[bytes("k".repeat(2047)), bytes("")]]).catch((error) => error.message);
  await runner.kvDrop(actorId);
  seen.all = pairs(await runner.kvListAll(actorId));
  return seen;
}
