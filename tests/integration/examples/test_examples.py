"""The examples in Python, each run without an engine; tests/e2e runs them with one."""

from datetime import timedelta

from examples.chat import app as chat
from examples.counter import app as counter
from examples.reminder import app as reminder
from runners.sdk.testing import LocalEngine

SECOND = timedelta(seconds=1)


async def test_a_chat_room_goes_on_after_its_sleep_and_nobody_is_disconnected():
    async with LocalEngine(chat.actors) as engine:
        room = engine.actor("chat", key="kitchen")
        anna = await room.websocket("/?name=anna")
        await anna.send("hello")
        bert = await room.websocket("/?name=bert")
        assert [await bert.recv() for _ in range(3)] == ["anna has come", "anna: hello", "bert has come"]
        await engine.advance(30 * SECOND)
        assert not room.is_awake
        await bert.send("still here?")
        assert [await anna.recv() for _ in range(4)][-2:] == ["bert has come", "bert: still here?"]
        await bert.close()
        await engine.advance(SECOND)
        shown = (await room.fetch()).json()
        assert shown["here"] == ["anna"]
        assert shown["lines"][-2:] == ["bert: still here?", "bert has left"]
        assert shown["generation"] == 1


async def test_a_counter_counts_on_after_its_sleep():
    async with LocalEngine({"counter": counter.Counter}) as engine:
        alice = engine.actor("counter", key="alice")
        assert (await alice.fetch("/")).json() == {"count": 1, "generation": 0}
        assert (await alice.fetch("/sleep")).json() == {"count": 1, "generation": 0}
        await alice.asleep()
        assert (await alice.fetch("/")).json() == {"count": 2, "generation": 1}
        assert (await alice.fetch("/elsewhere")).status_code == 404
        await alice.fetch("/destroy")
        await alice.asleep()
        assert alice.is_destroyed


async def test_a_reminder_sleeps_until_it_is_time():
    async with LocalEngine(reminder.actors) as engine:
        anna = engine.actor("reminder", key="anna")
        for seconds, text in [(180, "tea"), (240, "bed")]:
            answer = await anna.fetch(method="POST", json={"text": text, "seconds": seconds})
            assert answer.status_code == 201
        bed = answer.json()["name"]
        await engine.advance(20 * SECOND)
        assert not anna.is_awake
        await engine.advance(161 * SECOND)
        assert anna.is_awake
        shown = (await anna.fetch()).json()
        assert shown["pending"] == {bed: "bed"}
        assert shown["reminded"] == [{"text": "tea", "at": "2030-01-01T00:03:00+00:00"}]
        assert (await anna.fetch(f"/{bed}", method="DELETE")).status_code == 204
        assert (await anna.fetch(f"/{bed}", method="DELETE")).status_code == 404
        await engine.advance(timedelta(hours=1))
        assert len((await anna.fetch()).json()["reminded"]) == 1
