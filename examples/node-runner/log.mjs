/** Write one JSON line to stdout. */
export function log(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, at: Date.now(), pid: process.pid, ...fields })}\n`);
}
