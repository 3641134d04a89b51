"""The RivetKit example as a child process, and what RivetKit's own client makes of it.

`rivetkit_scenarios.mjs` plays the scenarios; RUNNER_SCENARIOS and SERVERLESS_SCENARIOS name them.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from tests.support.api import Api, wait_until
from tests.support.child import REPOSITORY, Child
from tests.support.npm import application_directory, modern_node

EXAMPLE = REPOSITORY / "examples" / "rivetkit"
SCENARIOS = Path(__file__).with_name("rivetkit_scenarios.mjs")
PLAY_SECONDS = 120.0
LOGGING = {"RIVET_LOG_LEVEL": "warn"}

RUNNER_SCENARIOS = (
    "an_action_answers",
    "an_error_of_an_action_is_told",
    "every_encoding_is_understood",
    "an_actor_calls_another",
    "connected_clients_hear_events",
    "state_outlives_sleep",
    "a_connection_outlives_sleep",
    "a_schedule_fires",
    "a_schedule_wakes_a_sleeping_actor",
    "a_queue_is_worked_off_in_order",
    "raw_http_reaches_the_actor",
    "a_raw_websocket_reaches_the_actor",
    "everyone_who_gets_or_creates_gets_the_same_actor",
    "one_of_those_who_create_a_key_wins",
    "a_destroyed_actor_is_not_found",
    "a_handle_of_a_key_makes_the_next_actor_of_it",
)
FROM_ZERO = "a_pool_without_runners_starts_one"
SERVERLESS_SCENARIOS = (FROM_ZERO, *RUNNER_SCENARIOS)
WITH_TOKENS = ("nobody_gets_in_without_a_good_token", *RUNNER_SCENARIOS)


class RivetKit:
    """The example, in a pool of its own name, in a directory that holds it and its packages.

    It connects to `api.url` in the namespace of `api`, serverless or as a runner, with a `token` if one is given.
    """

    def __init__(
        self, directory: Path, api: Api, pool: str, *, serverless: bool, token: str | None = None
    ) -> None:
        self._directory = directory / pool
        self._api = api
        self._pool = pool
        self._serverless = serverless
        self._node = modern_node()
        shutil.copytree(EXAMPLE, self._directory, ignore=shutil.ignore_patterns("node_modules"))
        (self._directory / "node_modules").symlink_to(application_directory(EXAMPLE) / "node_modules")
        shutil.copy(SCENARIOS, self._directory)
        mode = ["--port", "0"] if serverless else ["--runner"]
        where = ["--endpoint", api.url, "--namespace", api.namespace, "--pool", pool]
        command = [self._node, str(self._directory / "server.mjs"), *mode, *where]
        environment = {"RIVET_TOKEN": token} if token else {}
        self._child = Child(pool, command, directory / f"{pool}.log", environment | LOGGING)

    def __enter__(self) -> "RivetKit":
        self._child.start()
        wait_until(self._is_known, lambda: f"the engine knows it; it said:\n{self._child.output()}")
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()  # RivetKit ends its runners within a moment, and its process 15 s later

    def play(self, url: str, names: Collection[str], token: str | None = None) -> dict[str, str | None]:
        """Play these scenarios at once, by way of the web process at `url`; return what went wrong with each."""
        where = {"endpoint": url, "namespace": self._api.namespace, "pool": self._pool} | (
            {"token": token} if token else {}
        )
        done = subprocess.run(
            [self._node, str(self._directory / SCENARIOS.name), json.dumps(where), *names],
            capture_output=True,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
            env=os.environ | LOGGING,  # without the application's token
        )
        played = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
        assert done.returncode == 0, done.stdout + done.stderr
        return {one["name"]: one["error"] for one in played}

    def _is_known(self) -> bool:
        assert self._child.alive, self._child.output()
        if self._serverless:
            return self._api.has_pool(self._pool)
        return len(self._api.runners(self._pool)) == 1
