"""Connections that the kernel has taken in and the server has not, when it stops listening."""

import asyncio
import socket

import pytest

from orchestrator.server.listening import bind, waiting
from orchestrator.server.uvicorn import make_server
from tests.support.served import SOON


def test_connections_that_wait_are_accepted_and_then_none_is_left():
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        found = waiting(listener)
        assert sorted(one.getpeername() for one in found) == sorted(one.getsockname() for one in clients)
        assert waiting(listener) == []
        for one in [*found, *clients]:
            one.close()


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


@pytest.mark.timeout(SOON)
async def test_a_connection_that_uvicorn_has_not_accepted_when_it_stops_listening_is_served():
    listener = bind("127.0.0.1", 0)
    server = make_server(answer, None)
    serving = asyncio.create_task(server._serve([listener]))
    while not server.started:  # noqa: ASYNC110 (it tells nobody)
        await asyncio.sleep(0)
    with socket.create_connection(listener.getsockname()) as client:  # the loop has no turn to accept it
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await server.shutdown([listener])
        answered = b""
        while piece := client.recv(1000):
            answered += piece
    assert b"served" in answered
    serving.cancel()
    await asyncio.wait([serving])
