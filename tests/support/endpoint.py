"""Applications that host actors: the Node and the Python runner, as a serverless endpoint or long-lived.

Both write one JSON line per lifecycle event (`{"event", "at", "pid", …}`), which is what stories assert on:
listening, start_request, connected, actor_start, sleep_intent, actor_stop, start_aborted, evicted,
disconnected, shutdown. Their control paths make `GET /start` wait or fail.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.api import wait_until
from tests.support.child import Child
from tests.support.npm import CLIENT_RELEASES, NODE_RUNNER, client_directory

SDK_RUNNER = Path(__file__).with_name("sdk_endpoint.py")
Event = dict[str, Any]


class Application(Child):
    """A running application and its journal."""

    def events(self, name: str, **fields: Any) -> list[Event]:
        """Return the events of that name so far whose fields are as given, in order."""
        wanted = fields | {"event": name}
        return [event for event in self.journal() if wanted.items() <= event.items()]

    def journal(self) -> list[Event]:
        """Return all events so far, in order."""
        whole_lines = self.output().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole_lines if line.startswith('{"event"')]

    def wait(self, name: str, count: int = 1, **fields: Any) -> Event:
        """Wait for the `count`-th such event and return it."""

        def happened() -> bool:
            assert self.alive, f"{self.name} has ended:\n{self.output()}"
            return len(self.events(name, **fields)) >= count

        wait_until(happened, lambda: f"{self.name} says {name} {fields}; it said:\n{self.output()}")
        return self.events(name, **fields)[count - 1]

    def wait_ended(self) -> None:
        """Wait until the process has ended by itself."""
        wait_until(lambda: not self.alive, lambda: f"{self.name} ends; it said:\n{self.output()}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Endpoint(Application):
    """An application whose runners the engine starts, by `GET {url}/start`."""

    def start(self) -> None:
        """Start it and wait until it listens; when started again, where it did before."""
        earlier = len(self.events("listening"))
        super().start()
        port = self.wait("listening", earlier + 1)["port"]
        self.command[-2:] = ["--port", str(port)]
        self.url = f"http://127.0.0.1:{port}"

    def hold(self) -> None:
        """Let every `GET /start` from now on wait until `go`."""
        self._control("hold")

    def go(self) -> None:
        """Serve every `GET /start`, those that wait as well."""
        self._control("go")

    def fail(self) -> None:
        """Answer every `GET /start` with status 500."""
        self._control("fail")

    def end(self) -> None:
        """Answer every `GET /start` with a stream that ends before its runner has come. Only the SDK's."""
        self._control("end")

    def cut(self) -> None:
        """Break off every answer to `GET /start` that is under way. Only the SDK's."""
        self._control("cut")

    def _control(self, mode: str) -> None:
        httpx.post(f"{self.url}/control/{mode}").raise_for_status()


def node_endpoint(directory: Path, release: str = "2.2.1") -> Endpoint:
    """Return the Node endpoint on that release of the npm client, not yet started. It logs to `directory`."""
    return Endpoint(f"node-{release}", [*_node(release), "--port", "0"], directory / f"node-{release}.log")


def sdk_endpoint(directory: Path) -> Endpoint:
    """Return the endpoint on our own SDK, not yet started. It logs to `directory`."""
    return Endpoint("sdk", [sys.executable, str(SDK_RUNNER), "--port", "0"], directory / "sdk.log")


def node_runner(
    directory: Path,
    engine_url: str,
    pool: str,
    slots: int,
    *,
    name: str = "runner",
    release: str = CLIENT_RELEASES[0],
    version: int = 1,
    key: str | None = None,
    token: str | None = None,
) -> Application:
    """Return a long-lived Node runner, not yet started. It logs to `directory`, under its `name`.

    `key` is for client releases that do not draw their own.
    """
    command = [*_node(release), *_hosting(engine_url, pool, slots, version, key, token)]
    return Application(name, command, directory / f"{name}.log")


def sdk_runner(
    directory: Path,
    engine_url: str,
    pool: str,
    slots: int,
    *,
    name: str = "runner",
    version: int = 1,
    token: str | None = None,
) -> Application:
    """Return a long-lived runner on our own SDK, not yet started. It logs to `directory`, under its `name`."""
    command = [sys.executable, str(SDK_RUNNER), *_hosting(engine_url, pool, slots, version, None, token)]
    return Application(name, command, directory / f"{name}.log")


def _hosting(
    engine_url: str, pool: str, slots: int, version: int, key: str | None, token: str | None
) -> Sequence[str]:
    where = ["--runner", "--endpoint", engine_url, "--pool", pool, "--slots", str(slots)]
    given = [part for name, value in (("--key", key), ("--token", token)) if value for part in (name, value)]
    return [*where, "--version", str(version), *given]


def _node(release: str) -> Sequence[str]:
    return ["node", str(NODE_RUNNER), "--client-dir", str(client_directory(release))]
