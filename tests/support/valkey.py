"""A real Valkey server that a test run owns."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.embedded import valkey_program
from tests.support.child import Child

START_SECONDS = 20.0


class Valkey(Child):
    """A server on a unix socket in `directory`, which must be short of path; a test may kill and restart it."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}?db=0"
        command = [
            str(valkey_program()),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(directory),
        ]
        super().__init__("valkey", [*command, "--save", "", *options], directory / "valkey.log")

    def start(self) -> None:
        """Start it and wait until it answers."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        with redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0)) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.BusyLoadingError):
                    assert self.alive, self.output()
                    assert time.monotonic() < deadline, self.output()
                    time.sleep(0.01)


@contextmanager
def running(directory: Path | None = None) -> Iterator[str]:
    """Run a server, by default in a directory of its own, and give its URL as `REDIS_URL` has it."""
    home = directory or Path(tempfile.mkdtemp(prefix="torpor-valkey-"))
    server = Valkey(home)
    try:
        server.start()
        yield server.url
    finally:
        server.kill()
        if directory is None:
            shutil.rmtree(home)
