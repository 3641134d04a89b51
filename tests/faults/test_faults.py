"""A short run for every change: a few faults of every sort. `make faults` has many more."""

import asyncio
import statistics

from tests.faults.marks import on_a_fleet
from tests.faults.rolling import roll
from tests.faults.run import run

pytestmark = on_a_fleet(seconds=400)

SEED = 26
RATE = 100.0
RECEIPT_SECONDS = 0.9
"""A destruction waits a second for a receipt that does not come; as a rule they all do."""
END = (1012, "ws.going_away")
"""A socket's own web process has ended; that of its runner may end without it."""
KINDS = (
    "kill web",
    "kill worker after commit",
    "kill worker before commit",
    "freeze worker before trim",
    "kill connector",
    "kill endpoint",
    "wipe valkey",
    "kill valkey",
    "kill connections",
    "crash postgres",
    "cut runner",
    "restart web",
    "later worker",
    "clock of web jumps ahead",
    "clock of sweeper jumps ahead",
    "deadlock postgres",
    "delay engine to runner",
    "endpoint answers nonsense",
    "host errs in generations",
)


def test_faults_of_every_sort_break_no_promise(fleet):
    outcome = run(fleet, SEED, faults=len(KINDS), seconds=18, kinds=KINDS, fewest=3)
    assert list(outcome.violations) == []
    assert len(outcome.history.injected) >= len(KINDS) - 2  # a point nobody came to, a store that was away anyway
    destroyed = [one.seconds for one in outcome.history.of("destroy") if one.outcome == "ok"]
    assert statistics.median(destroyed) < RECEIPT_SECONDS, destroyed


def test_everything_is_restarted_in_turn_and_no_request_fails(fleet, record_property):
    rolled = asyncio.run(roll(fleet, RATE))
    record_property("rolled", str(rolled))
    print("while everything was restarted:", rolled)
    history = rolled.history
    assert [one for one in history.operations if one.outcome != "ok"] == []
    assert len(history.operations) > 8 * RATE
    for socket in history.sockets:
        assert socket.left or (socket.code, socket.reason.partition("#")[0]) == END, socket
        assert sorted(set(socket.heard)) == list(range(len(set(socket.heard)))), socket
