"""What is written in one turn of the event loop goes out together, in order, and before the end."""

import asyncio

import pytest

from orchestrator.server.gathering import Gathering
from orchestrator.server.limits import WRITE_BUFFER_BYTES


class Wire:
    """A transport that remembers what it was told."""

    def __init__(self):
        self.told = []

    def write(self, data):
        self.told.append(data)

    def write_eof(self):
        self.told.append("end")

    def close(self):
        self.told.append("hang up")

    def get_write_buffer_size(self):
        return 100

    def is_closing(self):
        return "hang up" in self.told

    def pause_reading(self):
        self.told.append("pause")

    def resume_reading(self):
        self.told.append("resume")

    def get_extra_info(self, name):
        return f"the {name}"


@pytest.fixture
async def wire():
    return Wire()


@pytest.fixture
async def gathering(wire):
    return Gathering(wire, asyncio.get_running_loop())


async def test_head_and_body_are_one(wire, gathering):
    gathering.write(b"head,")
    gathering.write(b"body")
    assert (wire.told, gathering.get_write_buffer_size()) == ([], 109)
    await asyncio.sleep(0)
    assert (wire.told, gathering.get_write_buffer_size()) == ([b"head,body"], 100)
    gathering.write(b"next")
    await asyncio.sleep(0)
    assert wire.told == [b"head,body", b"next"]


async def test_much_does_not_wait(wire, gathering):
    """Or whoever writes without a pause would never be told to wait."""
    gathering.write(b"first")
    gathering.write(bytes(WRITE_BUFFER_BYTES))
    assert wire.told == [b"first" + bytes(WRITE_BUFFER_BYTES)]
    await asyncio.sleep(0)
    assert len(wire.told) == 1


@pytest.mark.parametrize(("end", "word"), [("close", "hang up"), ("write_eof", "end")])
async def test_nothing_is_left_behind_at_the_end(wire, gathering, end, word):
    gathering.write(b"last")
    getattr(gathering, end)()
    await asyncio.sleep(0)
    assert wire.told == [b"last", word]


async def test_nothing_is_written_to_a_connection_that_has_ended(wire, gathering):
    gathering.write(b"late")
    wire.close()
    await asyncio.sleep(0)
    assert wire.told == ["hang up"]


async def test_for_the_rest_it_is_the_transport(wire, gathering):
    gathering.pause_reading()
    gathering.resume_reading()
    assert (wire.told, gathering.get_extra_info("peername")) == (["pause", "resume"], "the peername")
    assert not gathering.is_closing()
    gathering.close()
    assert gathering.is_closing()
