import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from orchestrator import embedded
from tests.support import postgres, valkey
from tests.support.api import wait_until
from tests.support.child import REPOSITORY, Child
from tests.support.processes import free_port, is_running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("up")]

READY_SECONDS = 120.0
EMBEDDED = {"DATABASE_URL": "", "REDIS_URL": "", "TORPOR_SECRET_KEY": ""}


class Up(Child):
    """`manage.py up` on a state directory and a free port."""

    def __init__(self, state: Path, log: Path, *options: str, **env: str) -> None:
        self.state = state
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "manage.py", "up", "--port", str(self.port), "--state", str(state), *options]
        super().__init__("up", command, log, EMBEDDED | env)

    def wait(self, text: str, since: int = 0) -> str:
        """Wait until it has written that, and return all that it has written."""

        def said() -> bool:
            assert self.alive or text in self.output(since), f"up has ended:\n{self.output()}"
            return text in self.output(since)

        wait_until(said, lambda: f"up says {text!r}; it said:\n{self.output()}", READY_SECONDS)
        return self.output(since)

    def wait_healthy(self) -> None:
        """Wait until it serves, with all it needs."""

        def healthy() -> bool:
            try:
                return httpx.get(f"{self.url}/health", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(healthy, lambda: f"{self.url} is healthy:\n{self.output()}", READY_SECONDS)

    def children(self) -> dict[str, int]:
        """Return the process ids of its children by a word of their command lines."""
        found = {}
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                    command = (process / "cmdline").read_text()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if parent == self.pid:
                    words = ("valkey-server", "serve\0", "runworker", "celery", "sweeper")
                    found[next(word for word in words if word in command).strip("\0")] = int(process.name)
        return found

    def end(self, *numbers: signal.Signals) -> int:
        """Send it these signals and return its exit code."""
        assert self._process is not None
        for number in numbers:
            self._process.send_signal(number)
        return self._process.wait(60)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def make(*options: str, **env: str) -> Up:
        engine = Up(tmp_path / "state", tmp_path / f"up{len(started)}.log", *options, **env)
        started.append(engine)
        engine.start()
        return engine

    yield make
    for engine in started:
        engine.stop()


def refused(state: Path, *options: str, **env: str) -> str:
    """Run `manage.py up` that is to end with an error at once, and return what it says."""
    command = [sys.executable, "manage.py", "up", "--state", str(state), *options]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | EMBEDDED | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_one_command_starts_an_engine_and_ctrl_c_stops_it(up: Callable[..., Up]) -> None:
    engine = up()
    said = engine.wait("Torpor is ready.")
    assert httpx.get(f"{engine.url}/health").json()["status"] == "ok"
    assert httpx.get(f"{engine.url}/datacenters").json()["datacenters"][0]["url"] == f"{engine.url}/"

    [(name, password)] = re.findall(r"login +(\S+) / (\S+)", engine.wait("next"))
    assert (engine.state / "admin_password").read_text().strip() == password
    assert logs_in(engine.url, name, password)
    for secret in (engine.state, engine.state / "admin_password", engine.state / "secret_key"):
        assert secret.stat().st_mode & 0o077 == 0
    assert "\x1b[" not in said, "no colours in a file"

    demo = [sys.executable, "examples/demo.py", "--engine", engine.url]
    shown = subprocess.run(demo, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.findall(r'"count": \d, "generation": \d', shown) == [
        '"count": 1, "generation": 0',
        '"count": 2, "generation": 0',
        '"count": 2, "generation": 0',
        '"count": 3, "generation": 1',
    ]

    children = engine.children()
    assert len(children) == 5
    assert str(engine.pid) in refused(engine.state)
    assert engine.children() == children

    mark = len(engine.output().encode())
    os.kill(children["celery"], signal.SIGKILL)
    engine.wait("worker    | ended by SIGKILL, starts again in 0.5 s", mark)
    engine.wait("ready.", mark)
    engine.wait_healthy()

    children = engine.children()
    assert engine.end(signal.SIGINT) == 0, engine.output()
    assert not any(map(is_running, children.values()))


def test_a_killed_engine_leaves_no_process_and_loses_nothing(up: Callable[..., Up]) -> None:
    engine = up()
    password = re.findall(r"login +admin / (\S+)", engine.wait("next"))[0]
    body = {"name": "kept", "display_name": "Kept"}
    assert httpx.post(f"{engine.url}/namespaces", json=body).status_code == 200
    with redis.Redis.from_url(embedded.redis_url(engine.state)) as store:
        store.set("kept", "value")
    children = engine.children()
    assert len(children) == 5
    engine.kill()
    wait_until(lambda: not any(map(is_running, children.values())), lambda: f"{children} are gone")

    engine = up()
    assert f"login   admin / (in {engine.state}/admin_password)" in engine.wait("next")
    assert logs_in(engine.url, "admin", password)
    namespaces = httpx.get(f"{engine.url}/namespaces").json()["namespaces"]
    assert "kept" in [namespace["name"] for namespace in namespaces]
    with redis.Redis.from_url(embedded.redis_url(engine.state)) as store:
        assert store.get("kept") == b"value"

    children = engine.children()
    os.kill(children["serve"], signal.SIGSTOP)  # will not stop when asked
    mark = len(engine.output().encode())
    os.kill(engine.pid, signal.SIGINT)
    engine.wait("stopping", mark)
    assert engine.end(signal.SIGINT) == 130
    assert not any(map(is_running, children.values()))


@pytest.mark.postgres
def test_servers_named_by_the_environment_are_used_instead(up: Callable[..., Up]) -> None:
    with postgres.running() as database_url, valkey.running() as redis_url:
        engine = up("--server", "uvicorn", "--workers", "2", DATABASE_URL=database_url, REDIS_URL=redis_url)
        engine.wait("worker1@")
        engine.wait("worker2@")
        engine.wait("next")
        assert "valkey-server" not in engine.children()
        assert {entry.name for entry in engine.state.iterdir()} == {"lock", "secret_key", "admin_password"}
        with redis.Redis.from_url(redis_url) as store:
            assert store.keys()
        assert engine.end(signal.SIGTERM) == 0, engine.output()


def test_a_port_in_use_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is in use, choose another with --port" in refused(tmp_path / "s", "--port", str(port))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"TORPOR_SHARDS": "many"}, "TORPOR_SHARDS='many'"),
        ({"DATABASE_URL": "mysql://host/name"}, "DATABASE_URL: only sqlite and postgresql"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "the database is out of reach"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "redis is out of reach"),
    ],
)
def test_a_wrong_setting_is_an_error_in_one_sentence(tmp_path: Path, env: dict[str, str], message: str) -> None:
    assert message in refused(tmp_path / "state", "--port", str(free_port()), **env)


def logs_in(url: str, name: str, password: str) -> bool:
    """Log in to the admin and say whether it let us in."""
    with httpx.Client(base_url=url) as browser:
        browser.get("/admin/login/").raise_for_status()
        form = {"username": name, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        return browser.post("/admin/login/?next=/admin/", data=form).status_code == 302
