"""Which runner a socket is of, and what becomes of the socket before it (PROTOCOL §2.3, §4.1)."""

import asyncio
from datetime import timedelta

import pytest
from django.utils import timezone

from orchestrator.db import run_db
from orchestrator.ids import new_id
from orchestrator.models import Namespace
from orchestrator.redis import get_redis
from runners.channel import Evict, encode, runner_channel
from runners.models import Runner
from runners.protocol.messages import ToClientInit, ToClientPing
from tests.support.scripted_runner import ScriptedRunner
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


async def row_of(runner):
    return await run_db(Runner.objects.get, pk=runner.runner_id)


async def test_the_same_key_gets_the_same_runner_and_the_older_socket_is_evicted(worker, host):
    first = await host()
    second = await host()
    assert second.runner_id == first.runner_id
    assert await first.has_closed() == (1000, "ws.eviction")
    assert (await row_of(second)).socket_id
    assert await run_db(Runner.objects.count) == 1


async def test_the_older_socket_is_not_closed_before_the_newer_has_its_init(worker, host, engine_url):
    first = await host()
    for _ in range(3):
        second = ScriptedRunner(engine_url)
        connecting = asyncio.create_task(second.connect())
        await first.has_closed()
        assert isinstance(second.received[0], ToClientInit)
        await connecting
        first = second
    await first.end()


async def test_other_keys_pools_and_namespaces_are_other_runners(worker, host):
    await run_db(Namespace.objects.create, name="other", display_name="Other")
    runners = [await host(**options) for options in ({}, {"key": "k2"}, {"pool": "p2"}, {"namespace": "other"})]
    assert len({runner.runner_id for runner in runners}) == 4
    assert all(runner.socket.close_code is None for runner in runners)


async def test_a_reconnect_keeps_the_id_and_what_the_runner_was_made_with(worker, host):
    runner = await host(metadata='{"a": 1}')
    await runner.close()
    again = await host(release=9, slots=99)
    assert again.runner_id == runner.runner_id
    row = await row_of(again)
    assert (row.runner_version, row.total_slots, row.metadata) == (1, 10, {"a": 1})
    new = await host(metadata='{"b": 2}')
    assert (await row_of(new)).metadata == {"b": 2}


async def test_a_draining_runners_key_goes_to_a_new_runner_and_its_own_socket_is_evicted(worker, host):
    first = await host()
    await run_db(Runner.objects.filter(pk=first.runner_id).update, used_slots=1)  # else it is evicted at once
    await drain(first)
    second = await host()
    assert second.runner_id != first.runner_id
    assert await first.has_closed() == (1000, "ws.eviction")
    assert second.socket.close_code is None


async def test_a_silent_runners_key_goes_to_a_new_runner(worker, host):
    first = await host()
    await first.close()
    long_ago = timezone.now() - timedelta(seconds=16)
    await run_db(Runner.objects.filter(pk=first.runner_id).update, last_ping_at=long_ago)
    second = await host()
    assert second.runner_id != first.runner_id
    row = await eventually(lambda: run_db(Runner.objects.filter(pk=first.runner_id, state="stopped").first))
    assert (row.stop_reason, row.holds_key) == ("connection_lost", False)
    assert (await row_of(second)).holds_key


async def test_many_sockets_of_one_key_at_once_are_one_runner_with_one_socket(worker, host):
    runners = await asyncio.gather(*(host() for _ in range(5)))
    assert len({runner.runner_id for runner in runners}) == 1

    await eventually(lambda: sum(runner.socket.close_code == 1000 for runner in runners) == 4)
    [kept] = [runner for runner in runners if runner.socket.close_code is None]
    await kept.socket.ping()
    assert (await row_of(kept)).socket_id


async def test_an_older_socket_finds_out_by_itself_if_nobody_tells_it(host, env):
    env(runner_ping_interval_ms=100)
    first = await host()  # no worker: the eviction is not even thought of
    second = await host()
    assert await first.has_closed() == (1000, "ws.eviction")
    await second.take(ToClientPing)


async def test_a_late_word_to_keep_an_earlier_socket_ends_no_later_one(worker, host, env):
    env(runner_ping_interval_ms=100)
    runner = await host()
    earlier = new_id()
    get_redis().publish(runner_channel(runner.runner_id), encode(Evict(earlier)))
    for _ in range(3):
        await runner.take(ToClientPing)
    assert runner.socket.close_code is None
    get_redis().publish(runner_channel(runner.runner_id), encode(Evict()))
    assert await runner.has_closed() == (1000, "ws.eviction")


async def drain(runner):
    from orchestrator.workflow import mailbox

    signal = {"t": "drain", "grace_ms": 60_000, "by": "pool"}
    await run_db(mailbox.post, "runners", runner.runner_id, signal)
    await eventually(lambda: run_db(Runner.objects.filter(pk=runner.runner_id, state="draining").exists))
