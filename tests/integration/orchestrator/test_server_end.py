"""How a process that serves begins and ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.orchestrator.conftest import SERVERS
from tests.support.child import REPOSITORY
from tests.support.processes import free_port
from tests.support.served import SOON, Served, closed, running

pytestmark = pytest.mark.parametrize("server", SERVERS)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - a process tells us nothing
            await asyncio.sleep(0.01)


async def end(served: Served, number: signal.Signals) -> float:
    """Send a signal, see the process end well, and return the seconds it took."""
    started = time.monotonic()
    os.kill(served.pid, number)
    assert await asyncio.to_thread(served.wait) == 0
    return time.monotonic() - started


async def test_at_sigterm_the_callbacks_come_first_then_sockets_close_and_requests_end(
    server: str, tmp_path: Path
) -> None:
    with running(server, tmp_path, "--goodbye") as served:
        async with served.open("/echo") as runner, served.open("/return") as client:
            await runner.send("registered")
            await runner.recv()
            async with httpx.AsyncClient(base_url=served.url) as http:
                request = asyncio.create_task(http.get("/slow?1.5"))
                await until(lambda: "begun" in served.output())
                os.kill(served.pid, signal.SIGTERM)
                await until(lambda: "goodbye\n" in served.output())
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", served.port))
                assert await closed(runner) == (1011, "ws.going_away#ray")
                assert "goodbye said" not in served.output()
                assert await closed(client) == (1012, "ws.going_away")
                assert (await request).text == '"slow"'
        assert await asyncio.to_thread(served.wait) == 0
        lines = [line for line in served.output().splitlines() if line != "begun"]
        assert lines[0] == "goodbye"
        assert lines[-2:] == ["goodbye said", "served"]
        assert "disconnected 1011 ws.going_away#ray" in lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_at_once(server: str, tmp_path: Path, number: signal.Signals) -> None:
    with running(server, tmp_path) as served:
        async with served.talk(b"GET /journal HTTP/1.1\r\nHost: x\r\n\r\n") as (kept_alive, _):
            await kept_alive.readuntil(b"{")
            assert await end(served, number) < 4
        assert served.output().splitlines() == ["served"]


REQUEST = b"GET /journal HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_whoever_has_connected_before_the_end_may_ask_and_is_answered(server: str, tmp_path: Path) -> None:
    with running(server, tmp_path) as served:
        served.get("/journal")  # it has begun
        async with served.talk(b"") as (reader, writer):
            os.kill(served.pid, signal.SIGTERM)
            await until(lambda: not listens(served.port))
            writer.write(REQUEST)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        assert await asyncio.to_thread(served.wait) == 0


async def test_told_to_end_as_soon_as_it_listens_it_still_serves_whoever_has_connected(
    server: str, tmp_path: Path
) -> None:
    with running(server, tmp_path) as served:
        async with served.talk(REQUEST) as (reader, _):
            os.kill(served.pid, signal.SIGTERM)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        assert await asyncio.to_thread(served.wait) == 0


WAITING = 400
"""More than a server accepts on its way from the signal to closing its listener, as it does a few at a time."""


async def test_connections_that_wait_to_be_accepted_at_the_end_are_served(server: str, tmp_path: Path) -> None:
    with running(server, tmp_path) as served:
        served.get("/journal")
        with ExitStack() as stack:
            served.freeze()
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", served.port), SOON))
                for _ in range(WAITING)
            ]
            for client in clients:
                client.sendall(REQUEST)
            os.kill(served.pid, signal.SIGTERM)
            served.thaw()
            answers = [await asyncio.to_thread(client.recv, 12) for client in clients]
        assert set(answers) == {b"HTTP/1.1 200"}


async def test_whoever_connects_just_as_it_stops_listening_is_served_or_refused(
    server: str, tmp_path: Path
) -> None:
    def ask_until_refused(port: int) -> list[bytes]:
        answers = []
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), SOON) as client:
                    client.sendall(REQUEST)
                    answers.append(client.recv(12))
            except ConnectionRefusedError:
                return answers

    with running(server, tmp_path) as served:
        served.get("/journal")
        asking = [asyncio.create_task(asyncio.to_thread(ask_until_refused, served.port)) for _ in range(16)]
        await asyncio.sleep(0.3)
        os.kill(served.pid, signal.SIGTERM)
        answers = [answer for answers in await asyncio.gather(*asking) for answer in answers]
    assert set(answers) == {b"HTTP/1.1 200"}


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_what_does_not_end_is_cut_off_after_a_while(server: str, tmp_path: Path) -> None:
    with running(server, tmp_path) as served:
        async with served.talk(b"GET /slow?60 HTTP/1.1\r\nHost: x\r\n\r\n") as (reader, _):
            await until(lambda: "begun" in served.output())
            assert 4.5 < await end(served, signal.SIGTERM) < 12
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")


async def test_told_twice_it_ends_at_once(server: str, tmp_path: Path) -> None:
    with running(server, tmp_path) as served:
        async with served.talk(b"GET /slow?60 HTTP/1.1\r\nHost: x\r\n\r\n"):
            await until(lambda: "begun" in served.output())
            os.kill(served.pid, signal.SIGINT)
            await asyncio.sleep(0.5)
            assert served.alive
            assert await end(served, signal.SIGINT) < 2


def test_a_port_in_use_is_an_error_that_names_it(server: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "manage.py", "serve", "--server", server, "--port", str(port)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
