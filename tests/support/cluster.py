"""A whole engine as child processes on given stores: what a production machine runs, on free ports."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from tests.support.api import Api, wait_until
from tests.support.child import REPOSITORY, Child
from tests.support.processes import free_port

Server = Literal["daphne", "uvicorn"]
Arrow = dict[str, Any]
READY_SECONDS = 60.0  # for the slowest process on a busy machine
MANAGE_SECONDS = 120.0

WORKER = (
    "-m celery -A {celery} worker --pool solo --concurrency 1"
    " --without-gossip --without-mingle --without-heartbeat -Q torpor --loglevel INFO -n"
)


class Cluster:
    """Web processes, Celery workers, connectors and a sweeper around one database and one Redis.

    `webs[0]` is where runners connect (the public URL). `env` overrides what the processes find in their
    environment; with `token`, that of the admin, the engine asks everybody for one. `celery` is the module whose
    app the workers run. Logs are files in `directory`.
    """

    def __init__(
        self,
        directory: Path,
        database_url: str,
        redis_url: str,
        server: Server = "daphne",
        webs: int = 2,
        workers: int = 1,
        connectors: int = 1,
        env: Mapping[str, str] | None = None,
        token: str | None = None,
        celery: str = "orchestrator.celery",
    ) -> None:
        self.directory = directory
        self.redis_url = redis_url
        ports = [free_port() for _ in range(webs)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._env = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TORPOR_STATE": str(directory / "state"),
            "TORPOR_PUBLIC_URL": self.urls[0],
            "TORPOR_SECRET_KEY": "a key for tests alone",
            "DJANGO_SETTINGS_MODULE": "orchestrator.settings",
        } | dict(env or {})
        if token is not None:
            self._env["TORPOR_ADMIN_TOKEN"] = token
        self.webs = [self._web(f"web{index}", port, server) for index, port in enumerate(ports)]
        self.workers = [self._worker(f"worker{index or ''}", celery) for index in range(workers)]
        self.connectors = [
            self._child(f"connector{index or ''}", "manage.py", "runworker", "serverless")
            for index in range(connectors)
        ]
        self.worker, self.connector = self.workers[0], self.connectors[0]
        self.sweeper = self._child("sweeper", "manage.py", "sweeper")
        self.children = [*self.webs, *self.workers, *self.connectors, self.sweeper]
        self.api = Api(self.urls[0], token=token)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Prepare the database, start everything and wait until the web processes answer."""
        self.manage("migrate", "--verbosity", "0")
        for child in self.children:
            child.start()
        for web in range(len(self.webs)):
            self.wait_healthy(web)

    def stop(self) -> None:
        """Stop everything, the web processes first."""
        self.api.close()
        for child in self.children:
            child.stop()

    def wait_healthy(self, web: int = 0) -> None:
        """Wait until that web process answers."""

        process = self.webs[web]

        def healthy() -> bool:
            assert process.alive, f"{process.name} has ended:\n{process.output()}"
            try:
                return httpx.get(f"{self.urls[web]}/health", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(healthy, lambda: f"{process.name} answers:\n{process.output()}", READY_SECONDS)

    def manage(self, *arguments: str) -> str:
        """Run a management command in this engine and return what it prints."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=REPOSITORY,
            env=self.worker.env,
            capture_output=True,
            text=True,
            timeout=MANAGE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"manage.py {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def timeline(self, actor_id: str) -> list[Arrow]:
        """Return the recorded arrows of an actor, oldest first: at, source, target, label, generation, …"""
        return list(json.loads(self.manage("timeline", actor_id, "--json")))

    def wait_recorded(self, actor_id: str, label: str, since: int = 0) -> list[Arrow]:
        """Wait until an arrow of this label comes after the first `since`, and return all that do."""
        latest: list[Arrow] = []

        def recorded() -> bool:
            latest[:] = self.timeline(actor_id)[since:]
            return label in [arrow["label"] for arrow in latest]

        wait_until(recorded, lambda: f"{label!r} is recorded; there is {latest}")
        return latest

    def marks(self) -> dict[str, int]:
        """Return how much each process has written so far; see `logs`."""
        return {child.name: child.log.stat().st_size if child.log.exists() else 0 for child in self.children}

    def logs(self, since: Mapping[str, int]) -> str:
        """Return what the processes wrote after `since`, one section each."""
        sections = [f"--- {child!r}\n{child.output(since.get(child.name, 0))}" for child in self.children]
        return "\n".join(sections)

    def _web(self, name: str, port: int, server: Server) -> Child:
        where = ["--host", "127.0.0.1", "--port", str(port), "--server", server]
        return self._child(name, "manage.py", "serve", *where)

    def _worker(self, name: str, celery: str) -> Child:
        return self._child(name, *WORKER.format(celery=celery).split(), f"{self.directory.name}-{name}@%h")

    def _child(self, name: str, *arguments: str) -> Child:
        return Child(name, [sys.executable, *arguments], self.directory / f"{name}.log", self._env)
