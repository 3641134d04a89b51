/** Remembers the WebSockets that stay open while their actor sleeps, so that its next life can take them up again. */

const sockets = new Map(); // actor id -> socket name -> metadata; of the process: they outlive any one runner in it

const name = ({ gatewayId, requestId }) => Buffer.concat([Buffer.from(gatewayId), Buffer.from(requestId)]).toString("hex");

/** Return the metadata of an actor's sockets, as the client's restoreHibernatingRequests wants it. */
export function of(actorId) {
  return [...(sockets.get(actorId)?.values() ?? [])];
}

/** Keep a new socket: its ids, path and headers. */
export function put(actorId, socket) {
  if (!sockets.has(actorId)) sockets.set(actorId, new Map());
  sockets.get(actorId).set(name(socket), { ...socket, serverMessageIndex: 0, clientMessageIndex: 0 });
}

/** Note that the message with this index has come in, so that a replay of it is recognised. */
export function received(actorId, ids, index) {
  const socket = sockets.get(actorId)?.get(name(ids));
  if (socket) socket.serverMessageIndex = index;
}

/** Forget a socket that was closed. */
export function remove(actorId, ids) {
  sockets.get(actorId)?.delete(name(ids));
}
