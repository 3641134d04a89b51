/** Finds the npm client, so that one script runs with any of its releases. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** Return `{Runner, version, ownsKey}` of the client in `directory`/node_modules; `ownsKey`: it draws its runner key itself. */
export async function loadClient(directory) {
  const home = join(directory, "node_modules", "@rivetkit", "engine-runner");
  const manifest = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
  const module = await import(pathToFileURL(join(home, manifest.exports.import.default)));
  const ownsKey = "destroyActor" in module.Runner.prototype; // both came with the same release
  return { Runner: module.Runner, version: manifest.version, ownsKey };
}
