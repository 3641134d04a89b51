"""A real engine for integration tests: `manage.py up` in a directory of its own, on a free port."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_S = 120.0
STOP_S = 30.0
PAUSE_S = 0.1
EMBEDDED = {"DATABASE_URL": "", "REDIS_URL": "", "DJANGO_SETTINGS_MODULE": "orchestrator.settings"}


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """An engine that answers at `url`; `log` is what it prints."""

    url: str
    log: Path


@contextmanager
def running_engine(directory: Path | None = None, *options: str) -> Iterator[RunningEngine]:
    """Run an engine with embedded stores; `options` are those of `manage.py up`.

    It needs Torpor whole, and some seconds: share it among tests, as a session's fixture. Its files are in
    `directory`, or in a temporary one that goes with it. Raises RuntimeError, with its output, if it does not
    start.
    """
    with tempfile.TemporaryDirectory(prefix="torpor-engine-") as temporary:
        home = directory or Path(temporary)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        log = home / "engine.log"
        command = ["-m", "django", "up", "--port", str(port), "--state", str(home / "state"), *options]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=os.environ | EMBEDDED,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        engine = RunningEngine(f"http://127.0.0.1:{port}", log)
        try:
            _wait_ready(engine, process)
            yield engine
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(engine: RunningEngine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{engine.url}/health", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(PAUSE_S)
    raise RuntimeError(f"the engine does not start:\n{engine.log.read_text()}")
