"""Signals of runners and pools as JSON: which are known, and that they may grow."""

from datetime import timedelta

import pytest

from runners.codec import decode_pool_signal, decode_runner_signal, knows_pool_signal, knows_runner_signal
from runners.lifecycle import Drain

FACTS = {"socket_id": "s", "grace_ms": 1, "request_id": "r", "status": 200, "runner_id": "u", "later": [1]}
OF_RUNNERS = ["connected", "disconnected", "drain", "slot_freed", "evict", "tick"]
OF_POOLS = ["bump", "tick", "retry", "opened", "ready", "ended", "runner_gone"]


@pytest.mark.parametrize("name", OF_RUNNERS)
def test_what_a_later_release_has_added_to_a_runners_signal_is_passed_over(name):
    assert knows_runner_signal({"t": name})
    assert decode_runner_signal({"t": name} | FACTS)


@pytest.mark.parametrize("name", OF_POOLS)
def test_what_a_later_release_has_added_to_a_pools_signal_is_passed_over(name):
    assert knows_pool_signal({"t": name})
    assert decode_pool_signal({"t": name} | FACTS)


@pytest.mark.parametrize(("said", "only_if_idle"), [({}, False), ({"only_if_idle": True}, True)])
def test_a_drain_is_for_every_runner_unless_it_says_for_an_idle_one(said, only_if_idle):
    drain = decode_runner_signal({"t": "drain", "grace_ms": 1500} | said)
    assert drain == Drain(timedelta(seconds=1.5), only_if_idle)


def test_a_kind_that_only_a_later_release_has_is_not_known():
    assert not knows_runner_signal({"t": "later"})
    assert not knows_pool_signal({"t": "later"})
