"""Signals on their way: into which mailbox, in which order, and which task is sent for them."""

import asyncio
import base64
import json
import threading

import pytest
import redis
from django.db import transaction

from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox
from orchestrator.workflow.mailbox import Letter, Postman, post, post_all, post_on_commit, shard_of
from tests.support.management import signals

PATIENCE_S = 10.0
KEY = "some-key"
SHARD = shard_of(KEY)


def tasks() -> list[tuple[str, list[int]]]:
    """Return name and arguments of the tasks in the queue, oldest first."""
    name = app.conf.broker_transport_options["global_keyprefix"] + app.conf.task_default_queue
    messages = [json.loads(message) for message in reversed(get_redis().lrange(name, 0, -1))]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    return [(message["headers"]["task"], body[0]) for message, body in zip(messages, bodies, strict=True)]


def test_a_key_has_one_shard_in_every_process(settings):
    assert [shard_of(f"key{n}") for n in range(4)] == [6, 0, 10, 12]
    assert {shard_of(str(n)) for n in range(2_000)} == set(range(settings.ENV.shards))


def test_signals_are_kept_in_the_order_they_were_posted():
    post("test", KEY, {"n": 1}, {"n": 2})
    post("test", KEY, {"n": 3})
    assert signals("test", KEY) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_many_letters_go_to_their_own_mailboxes_in_order():
    post_all(
        [
            Letter("test", KEY, {"n": 1}),
            Letter("other", KEY, {"n": 2}),
            Letter("test", "another", {"n": 3}),
            Letter("test", KEY, {"n": 4}),
        ]
    )
    assert signals("test", KEY) == [{"n": 1}, {"n": 4}]
    assert signals("other", KEY) == [{"n": 2}]
    assert signals("test", "another") == [{"n": 3}]
    assert sorted(tasks()) == [
        ("other.advance_shard", [SHARD]),
        ("test.advance_shard", [SHARD]),
        ("test.advance_shard", [shard_of("another")]),
    ]


def test_no_letters_are_no_trouble():
    post_all([])
    assert tasks() == []


def test_one_task_is_sent_for_all_that_waits():
    for n in range(3):
        post("test", KEY, {"n": n})
    assert tasks() == [("test.advance_shard", [SHARD])]


def test_no_task_is_sent_while_somebody_holds_the_shard():
    get_redis().set(mailbox.lock_name("test", SHARD), "a worker's token")
    post("test", KEY, {"n": 1})
    assert tasks() == []


def test_a_task_that_was_lost_is_sent_again_after_a_while():
    post("test", KEY, {"n": 1})
    assert 0 < get_redis().pttl(mailbox.mark_name("test", SHARD)) <= 5_000
    get_redis().delete(mailbox.mark_name("test", SHARD))
    post("test", KEY, {"n": 2})
    assert len(tasks()) == 2


def test_any_text_can_be_sent():
    odd = {"t": "wake", "request": 'GET /ünï?"\\\n\x00'}
    post("test", KEY, odd)
    assert signals("test", KEY) == [odd]


@pytest.mark.django_db(transaction=True)
def test_what_is_posted_on_commit_is_posted_if_it_commits():
    with transaction.atomic():
        post_on_commit("test", KEY, {"n": 1})
        assert signals("test", KEY) == []
    assert signals("test", KEY) == [{"n": 1}]

    with transaction.atomic():
        post_on_commit("test", KEY, {"n": 2})
        transaction.set_rollback(True)
    assert signals("test", KEY) == [{"n": 1}]


# The postman


def test_the_postman_keeps_the_order_of_a_sender():
    man = Postman()
    futures = [man.post("test", KEY, {"n": n}) for n in range(100)]
    assert [future.result(PATIENCE_S) for future in futures] == [None] * 100
    assert signals("test", KEY) == [{"n": n} for n in range(100)]


async def test_a_sender_that_stops_waiting_has_sent_all_the_same_and_harms_nobody():
    man = Postman()
    futures = [man.post("test", KEY, {"n": n}) for n in range(20)]
    for future in futures[::2]:
        future.cancel()
    for future in futures[1::2]:
        await asyncio.wait_for(asyncio.wrap_future(future), PATIENCE_S)
    last = man.post("test", KEY, {"n": 20})
    assert last.result(PATIENCE_S) is None
    assert signals("test", KEY) == [{"n": n} for n in range(21)]


def test_every_sender_learns_of_an_error_and_the_postman_lives_on():
    man = Postman()
    unsendable = man.post("test", KEY, {"n": object()})
    with pytest.raises(TypeError):
        unsendable.result(PATIENCE_S)
    assert man.post("test", KEY, {"n": 1}).result(PATIENCE_S) is None
    assert signals("test", KEY) == [{"n": 1}]


def test_a_store_that_refuses_is_told_to_the_sender():
    get_redis().set(mailbox.stream_name("test", SHARD), "not a stream")
    with pytest.raises(redis.ResponseError):
        Postman().post("test", KEY, {"n": 1}).result(PATIENCE_S)


def test_many_threads_may_post_at_once():
    man = Postman()
    threads = [
        threading.Thread(target=lambda who=who: [man.post("test", KEY, {"who": who, "n": n}) for n in range(50)])
        for who in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert man.post("test", KEY, {"who": 0, "n": 50}).result(PATIENCE_S) is None
    arrived = signals("test", KEY)
    for who in range(4):
        assert [signal["n"] for signal in arrived if signal["who"] == who] == list(range(51 if who == 0 else 50))
