import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from orchestrator import embedded
from orchestrator.embedded import StateTaken
from tests.support.child import REPOSITORY, Child

SOON = 20.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    embedded.make_state(directory)
    return directory


@pytest.fixture
def long_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory whose path is too long for a socket; the temporary directory is a test's own."""
    directory = tmp_path / ("long" * 30)
    embedded.make_state(directory)
    return directory


async def answering(state: Path, server: Child) -> None:
    async with asyncio.timeout(SOON):
        while not await embedded.answers(embedded.redis_socket(state)):
            assert server.alive, server.output()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[redis.Redis]:
    """Run the Valkey of that state directory and give a client of it."""
    server = Child("valkey", embedded.prepare_valkey(state), state / "log")
    server.start()
    try:
        await answering(state, server)
        with redis.Redis.from_url(embedded.redis_url(state)) as client:
            yield client
    finally:
        server.stop()


def test_the_state_directory_is_its_owners_alone(state: Path) -> None:
    assert state.stat().st_mode & 0o777 == 0o700


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    embedded.make_state(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_a_state_directory_has_one_holder_at_a_time(state: Path) -> None:
    with embedded.locked(state):
        with pytest.raises(StateTaken, match=f"process {os.getpid()}") as caught, embedded.locked(state):
            pass
        assert str(state) in str(caught.value)
    with embedded.locked(state):
        pass


def test_a_child_of_the_holder_does_not_hold_it(state: Path) -> None:
    with embedded.locked(state):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with embedded.locked(state):
        child.communicate()


def test_a_killed_holder_frees_it(state: Path) -> None:
    script = f"""if True:
        from pathlib import Path
        from orchestrator import embedded
        with embedded.locked(Path({str(state)!r})):
            print("held", flush=True)
            input()
    """
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateTaken, match=f"process {holder.pid}"), embedded.locked(state):
            pass
        holder.kill()
    with embedded.locked(state):
        pass


async def test_what_was_written_is_there_after_a_restart(state: Path) -> None:
    async with running(state) as client:
        client.set("key", "value")
        assert client.config_get("appendonly", "maxmemory-policy") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
        }
        assert client.config_get("port") == {"port": "0"}
        assert embedded.redis_socket(state).stat().st_mode & 0o777 == 0o700
    async with running(state) as client:
        assert client.get("key") == b"value"


async def test_a_socket_left_behind_is_no_hindrance(state: Path) -> None:
    server = Child("valkey", embedded.prepare_valkey(state), state / "log")
    server.start()
    await answering(state, server)
    server.kill()
    assert embedded.redis_socket(state).exists()
    assert not await embedded.answers(embedded.redis_socket(state))
    async with running(state) as client:
        assert client.ping()


async def test_strange_characters_in_the_path_do_no_harm(tmp_path: Path) -> None:
    state = tmp_path / "a %20b?c#d"
    embedded.make_state(state)
    async with running(state) as client:
        assert client.ping()


async def test_a_path_too_long_for_a_socket_gets_a_short_directory_elsewhere(
    long_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with running(long_state) as client:
        client.set("key", "value")
        socket = embedded.redis_socket(long_state)
        assert socket.parent.parent == tmp_path
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert (long_state / "run").resolve() == socket.parent
    async with running(long_state) as client:
        assert client.get("key") == b"value"
        assert embedded.redis_socket(long_state) == socket, "the same directory serves again"


def gone(directory: Path) -> None:
    directory.rmdir()


def open_to_others(directory: Path) -> None:
    directory.chmod(0o755)


@pytest.mark.parametrize("spoil", [gone, open_to_others])
def test_a_short_directory_that_is_no_longer_ours_alone_is_replaced(
    long_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    embedded.prepare_valkey(long_state)
    before = embedded.redis_socket(long_state).parent
    spoil(before)
    embedded.prepare_valkey(long_state)
    after = embedded.redis_socket(long_state).parent
    assert after != before
    assert after.stat().st_mode & 0o777 == 0o700


async def test_a_server_that_hangs_does_not_answer(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PING_SECONDS", 0.1)
    async with running(state) as client:
        pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert not await embedded.answers(embedded.redis_socket(state))
        finally:
            os.kill(pid, signal.SIGCONT)
