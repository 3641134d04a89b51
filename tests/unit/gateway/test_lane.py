"""The way to a runner at another process, over a Redis that may break at any moment."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.lane import Lane
from orchestrator.bus import Bus
from orchestrator.errors import BusUnavailable
from runners import channel
from runners.links import Flag, Links
from tests.support.web import eventually

GATEWAY, REQUEST = b"gate", b"rid1"


class Line:
    """Redis, and the runner's socket behind it: what comes through is taken as the socket would take it."""

    connected = True
    pending_bytes = 0

    def __init__(self) -> None:
        self.links = Links()
        self.taken: list[bytes] = []
        self.fate: Callable[[], str] = lambda: "through"

    async def publish_counted(self, _: str, payload: bytes) -> int:
        message = channel.decode(payload)
        assert isinstance(message, channel.Frames)
        fate = self.fate()
        await asyncio.sleep(0)
        if fate != "lost" and fate != "nobody" and self.links.take(message):
            self.taken += message.frames
        if fate in ("lost", "unanswered"):
            raise BusUnavailable
        return int(fate != "nobody")


class Socket:
    """A client's WebSocket on the lane."""

    request_id = REQUEST

    def __init__(self) -> None:
        self.heard: list[str] = []

    def runner_gone(self) -> None:
        self.heard.append("gone")

    def tunnel_lost(self) -> None:
        self.heard.append("lost")

    def tunnel_broken(self) -> None:
        self.heard.append("broken")

    def tunnel_silent(self) -> None:
        self.heard.append("silent")


def frame(number: int) -> bytes:
    return b"\x04" + GATEWAY + REQUEST + b"\0\0\x04" + str(number).encode()


@pytest.fixture
async def way() -> tuple[Line, Lane, Socket]:
    line, socket = Line(), Socket()
    lane = Lane(cast(Bus, line), GATEWAY, "runner", lambda _: None)
    lane.join(cast(Any, socket))
    return line, lane, socket


def send(lane: Lane, number: int) -> None:
    lane.send(frame(number), ("actor", 1))


FATES = [
    ["unanswered"],
    ["lost"],
    ["unanswered", "lost"],
    ["unanswered", "nobody"],
    ["unanswered", "nobody", "lost", "nobody"],
    ["nobody", "unanswered"],
    ["lost", "nobody", "unanswered", "unanswered"],
]


@pytest.mark.parametrize("fates", FATES, ids="-".join)
async def test_every_frame_comes_once_and_in_order_though_the_link_breaks_in_the_middle(way, fates):
    line, lane, socket = way
    send(lane, 0)
    await eventually(lambda: line.taken == [frame(0)])
    ahead = list(fates)
    line.fate = lambda: ahead.pop(0) if ahead else "through"
    send(lane, 1)
    await eventually(lambda: len(ahead) < len(fates))
    send(lane, 2)  # while it is not known what has become of the one before
    await eventually(lambda: len(line.taken) >= 3)
    send(lane, 3)
    await eventually(lambda: len(line.taken) >= 4)
    assert line.taken == [frame(number) for number in range(4)]
    assert socket.heard == []


@pytest.mark.parametrize("flags", [Flag.NONE, Flag.GONE], ids=["it goes on", "it has ended"])
async def test_what_the_socket_says_settles_what_the_link_did_not_answer(way, flags):
    line, lane, socket = way
    send(lane, 0)
    await eventually(lambda: line.taken == [frame(0)])
    line.fate = lambda: "unanswered" if len(line.taken) < 2 else "lost"
    send(lane, 1)
    await eventually(lambda: len(line.taken) == 2)
    lane.stand(line.links.standing(GATEWAY, flags))
    line.fate = lambda: "through"
    if flags:
        line.links = Links()
    send(lane, 2)
    await eventually(lambda: len(line.taken) >= 3)
    assert line.taken == [frame(number) for number in range(3)]
    assert "lost" not in socket.heard


async def test_what_is_just_being_published_as_the_socket_ends_is_said_again(way):
    line, lane, socket = way
    send(lane, 0)
    await eventually(lambda: line.taken == [frame(0)])
    line.fate = lambda: "nobody"
    send(lane, 1)
    await asyncio.sleep(0)  # it is under way now
    lane.stand(line.links.standing(GATEWAY, Flag.GONE))
    line.links, line.fate = Links(), lambda: "through"
    await eventually(lambda: len(line.taken) == 2)
    assert line.taken == [frame(0), frame(1)]
    assert socket.heard == ["gone"]
