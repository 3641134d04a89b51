"""Each invariant the checker knows, once kept and once broken: a checker that cannot fail proves nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.checker import Evidence, check
from tests.faults.checker.lives import check_lives
from tests.faults.checker.operations import check_operations
from tests.faults.checker.rows import check_rows
from tests.faults.checker.sockets import check_sockets
from tests.faults.facts import Facts
from tests.faults.history import History, Injected, LateWrite, Operation, Sleeper, SocketLog
from tests.faults.schedule import Fault

T = 1_800_000_000.0
KINDS = ("call", "count", "sleep", "create", "destroy", "read", "alarm")


def operation(kind="call", began=0.0, seconds=0.01, **columns):
    """One that went well, `began` seconds after T."""
    told = {"outcome": "ok", "status": 200} | columns
    return Operation(kind, told.pop("actor_id", "a"), told.pop("web", 0), T + began, T + began + seconds, **told)


def refused(code, kind="call", **columns):
    return operation(kind, outcome="refused", status=503, code=code, **columns)


def fault(kind, began=-1.0, seconds=1.0, hit=("web0",), pids=()):
    return Injected(Fault(0, kind, 0, seconds), T + began, T + began + seconds, hit, pids)


def seen(*operations, faults=(), sleepers=(), facts=None, sockets=()):
    """Evidence with enough of everything, and of it what a test adds."""
    enough = [operation(kind, began=-9 + n / 10, value=n, actor_id="enough") for kind in KINDS for n in range(4)]
    history = History([*enough, *operations], list(sockets), list(sleepers), list(faults), ended_at=T + 100)
    entries = [{"actor_id": "enough", "key": b"count", "value": b"3"}]
    return Evidence(history, facts or Facts(entries=entries), fewest=2)


GOOD = {
    "a request that was answered": seen(operation()),
    "a refusal with a reason while a store is away": seen(
        refused("core.store_unavailable"), faults=[fault("crash postgres")]
    ),
    "a connection cut by the death of its web process": seen(
        operation(outcome="broken"), faults=[fault("kill web", hit=("web0",))]
    ),
    "a destroyed actor that is not found": seen(
        operation("destroy"), refused("actor.not_found", "call in vain", began=1)
    ),
    "a call that meets its actor's destruction": seen(
        operation("destroy", began=0.5), refused("actor.not_found", seconds=1.0)
    ),
    "nobody to be seen from another namespace": seen(operation("stranger", value=0)),
}
BAD = {
    "I3: not answered in time": [
        seen(operation(outcome="waiting")),
        seen(operation(seconds=70.0)),
    ],
    "I3: refused without a good reason": [seen(refused("core.internal_error"), faults=[fault("kill web")])],
    "I3: refused although nothing was wrong": [
        seen(refused("guard.actor_ready_timeout")),
        seen(refused("guard.actor_ready_timeout"), faults=[fault("kill worker after lock")]),
        seen(refused("guard.actor_ready_timeout", began=50), faults=[fault("kill web")]),
    ],
    "I3: the connection ended without an answer": [
        seen(operation(outcome="broken")),
        seen(operation(outcome="broken"), faults=[fault("kill web", hit=("web1",))]),
        seen(operation(outcome="broken"), faults=[fault("restart web", hit=("web0",))]),
    ],
    "I4: not served when all was whole again": [
        seen(refused("guard.actor_ready_timeout", "last call"), faults=[fault("kill web")])
    ],
    "I10: the key": [
        seen(operation("create", key="k", actor_id="a"), operation("create", key="k", actor_id="b")),
    ],
    "I12: an acknowledged write was lost": [
        seen(operation("count", value=5), operation("count", began=1, value=5)),
        seen(operation("count", value=5), operation("count", began=1, value=3)),
        seen(operation("count", value=5)),
    ],
    "I15": [seen(operation("stranger", value=1))],
    "a destroyed actor answered": [seen(operation("destroy"), operation("call in vain", began=1))],
    "too little succeeded": [
        seen(
            *[refused("guard.actor_ready_timeout", began=n) for n in range(10)], faults=[fault("kill web", 0, 99)]
        ),
        Evidence(History()),
    ],
}


@pytest.mark.parametrize("evidence", GOOD.values(), ids=GOOD)
def test_operations_that_keep_the_promises_pass(evidence):
    assert list(check_operations(evidence)) == []


@pytest.mark.parametrize(
    ("told", "evidence"),
    [(told, evidence) for told, of_kind in BAD.items() for evidence in of_kind],
    ids=[f"{told} {n}" for told, of_kind in BAD.items() for n, _ in enumerate(of_kind)],
)
def test_operations_that_break_one_are_told(told, evidence):
    assert [one for one in check_operations(evidence) if one.startswith(told)]


def test_a_write_into_the_next_life_is_told_and_one_that_was_refused_is_not():
    evidence = seen()
    evidence.history.late_writes.append(LateWrite("a", 0, accepted=False))
    assert list(check_operations(evidence)) == []
    evidence.history.late_writes.append(LateWrite("a", 0, accepted=True))
    (told,) = check_operations(evidence)
    assert told.startswith("I12: a life that was over")


# Alarms


def sleeper(rung=3.0):
    return Sleeper("s", int((T + 2) * 1000), 0, T, T + 1, rung and T + rung)


def ringing(after):
    at = datetime.fromtimestamp(T + after, UTC)
    return Facts(timeline=[{"actor_id": "s", "label": "alarm due", "at": at, "data": {}, "generation": 0}])


def test_an_alarm_that_rings_in_time_passes_and_one_that_rings_early_or_never_does_not():
    enough = [{"actor_id": "enough", "key": b"count", "value": b"3"}]
    in_time, early = ringing(2.1), ringing(1.5)
    for facts in (in_time, early):
        facts.entries = enough
    assert list(check_operations(seen(sleepers=[sleeper()], facts=in_time))) == []
    [told] = check_operations(seen(sleepers=[sleeper()], facts=early))
    assert told.startswith("I11: an alarm rang early")
    [told] = check_operations(seen(sleepers=[sleeper(rung=None)]))
    assert told.startswith("I11: an alarm did not ring")
    lost = fault("kill runner", began=0.5)
    assert list(check_operations(seen(sleepers=[sleeper(rung=None)], faults=[lost]))) == []


# WebSockets


def socket(heard, sent=None, **columns):
    told = {"left": True, "closed": T + 9, "code": 1000} | columns
    sent = len(heard) if sent is None else sent
    return SocketLog("a", 0, told.pop("may_hibernate", False), T, sent, heard, **told)


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (socket([0, 1, 2]), None),
        (socket([0, 1, 1, 2], sent=3, may_hibernate=True), None),
        (socket([0, 1, 1, 2], sent=3), "I7: 1 came twice"),
        (socket([0, 2], sent=3), "I7: 2 came where 1 was due"),
        (socket([0, 1, 2], sent=2), "I7: 2 came where"),
        (socket([0, 2, 1, 3], sent=4, may_hibernate=True), "I7: 2 came where 1 was due"),
        (socket([0, 1], sent=3), "I7: 3 were sent, the last 1 never came back"),
        (socket([0], left=False, closed=None), "I7: never closed"),
        (socket([0], left=False, code=None), "I7: ended without a close"),
        (socket([0], left=False, code=1011, reason="core.internal_error#x"), "I7: closed without a good reason"),
        (socket([0], left=False, reason="actor.stopped"), "I7: closed although nothing was wrong"),
    ],
)
def test_sockets(log, told):
    found = list(check_sockets(seen(sockets=[log])))
    assert (found == []) if told is None else found[0].startswith(told)


def test_a_socket_may_end_for_a_reason_while_faults_are_about():
    killed = [fault("kill web", began=8, hit=("web0",))]
    away = [fault("kill runner", began=8)]
    assert list(check_sockets(seen(sockets=[socket([0], left=False, code=None)], faults=killed))) == []
    ended = socket([0], left=False, reason="actor.stopped")
    assert list(check_sockets(seen(sockets=[ended], faults=away))) == []


# Lives


def event(name, at, generation=0, pid=1, **fields):
    told = {"event": name, "at": int((T + at) * 1000), "pid": pid, "process": "runner-npm"}
    return told | ({"actorId": "a", "generation": generation} if name.startswith("actor") else {}) | fields


def lived(*journals, status="asleep", generation=1, faults=(), pids=frozenset({1, 2})):
    rows = [{"id": "a", "status": status, "generation": generation}]
    return Evidence(History(injected=list(faults)), Facts(actors=rows), journals, pids)


ONE_AFTER_THE_OTHER = (
    event("actor_start", 0),
    event("actor_stop", 1),
    event("actor_start", 1.1, 1, pid=2),
    event("actor_stop", 2, 1, pid=2),
)
TOGETHER = (event("actor_start", 0), event("actor_start", 30, 1, pid=2), event("actor_stop", 40, 1, pid=2))


def test_lives_one_after_the_other_pass():
    assert list(check_lives(lived(*ONE_AFTER_THE_OTHER))) == []


def test_a_life_led_twice_and_generations_that_go_back_are_told():
    twice = (*ONE_AFTER_THE_OTHER, event("actor_start", 3, 1), event("actor_stop", 4, 1))
    assert any(one.startswith("I8") for one in check_lives(lived(*twice)))
    back = (
        event("actor_start", 0, 1),
        event("actor_stop", 1, 1),
        event("actor_start", 2, 0),
        event("actor_stop", 3),
    )
    assert any(one.startswith("I1: generations went back") for one in check_lives(lived(*back)))


def test_two_lives_at_once_are_told_unless_the_first_was_out_of_reach():
    stopped_late = (*TOGETHER, event("actor_stop", 35))
    assert any("went on while" in one for one in check_lives(lived(*stopped_late)))
    frozen = fault("lose runner", began=10, seconds=18, hit=("runner-npm",), pids=(1,))
    assert list(check_lives(lived(*stopped_late, faults=[frozen]))) == []
    shortly = fault("freeze runner", began=10, seconds=3, hit=("runner-npm",), pids=(1,))
    assert any("went on while" in one for one in check_lives(lived(*stopped_late, faults=[shortly])))
    away = (*stopped_late, event("disconnected", 10), event("connected", 32))
    assert list(check_lives(lived(*away))) == []


def test_a_killed_process_took_its_lives_with_it():
    killed = fault("kill runner", began=20, hit=("runner-npm",), pids=(1,))
    assert list(check_lives(lived(*TOGETHER, faults=[killed], pids=frozenset({2})))) == []


def test_a_zombie_and_a_ghost_are_told():
    zombie = (event("actor_start", 0),)
    assert any("is a zombie" in one for one in check_lives(lived(*zombie)))
    assert list(check_lives(lived(*zombie, event("shutdown", 1)))) == []
    assert any(one.startswith("I4") for one in check_lives(lived(*ONE_AFTER_THE_OTHER, status="running")))
    runs = (*ONE_AFTER_THE_OTHER[:2], event("actor_start", 1.1, 1, pid=2))
    assert list(check_lives(lived(*runs, status="running"))) == []


# Rows

NOW = datetime.fromtimestamp(T, UTC)
ACTOR = {
    "id": "a",
    "namespace_id": "n",
    "name": "counter",
    "key": "k",
    "crash_policy": "sleep",
    "created_at": NOW,
    "status": "destroyed",
    "generation": -1,
    "runner_id": "",
    "destroyed_at": NOW,
    "due_at": None,
    "failure": None,
}
HEARD = {"signal": {"t": "destroy"}, "state": "destroyed"}
DESTROYED = {"actor_id": "a", "at": NOW, "data": HEARD, "label": "destroy"}
RUNNER = {"id": "r", "state": "live", "socket_id": "s", "used_slots": 0, "total_slots": 4, "due_at": NOW}


def rows(**tables):
    facts = Facts(**({"actors": [ACTOR], "timeline": [DESTROYED], "runners": [RUNNER]} | tables))
    return Evidence(History(ended_at=T), facts)


def test_settled_rows_pass():
    assert list(check_rows(rows())) == []


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"actors": [ACTOR | {"status": "stopping"}]}, "I4: not settled"),
        ({"actors": [ACTOR | {"status": "running", "due_at": NOW - timedelta(minutes=1)}]}, "I4: overdue"),
        ({"runners": [RUNNER | {"state": "draining"}]}, "I4: runner r is still draining"),
        ({"runners": [RUNNER | {"socket_id": ""}]}, "I4: runner r is live without a socket"),
        ({"runners": [RUNNER | {"used_slots": 1}]}, "I9"),
        ({"timeline": []}, "I16: the timeline of a leads to"),
        ({"timeline": [DESTROYED | {"data": HEARD | {"state": "asleep"}}]}, "I16: a is"),
        ({"set_aside": [{"key": "a"}]}, "a signal was set aside"),
        ({"accounts": [{"actor_id": "a", "used_bytes": 2, "stored_bytes": 1}]}, "I12: an account"),
        ({"entries": [{"actor_id": "a", "key": b"", "value": b""}]}, "left over: storage"),
        ({"pairs": [{"actor_id": "a"}]}, "left over"),
        (
            {"runners": [RUNNER | {"state": "stopped", "due_at": None}], "commands": [{"runner_id": "r"}]},
            "left over: a command",
        ),
    ],
)
def test_rows_that_break_an_invariant_are_told(tables, told):
    assert any(one.startswith(told) for one in check_rows(rows(**tables)))


def test_a_process_that_ended_by_itself_is_told():
    assert list(check_rows(replace(rows(), ended=("worker",)))) == ["worker ended by itself"]


def test_two_live_actors_of_one_key_are_told():
    asleep = ACTOR | {"status": "asleep", "destroyed_at": None, "slept_at": NOW}
    both = [asleep, asleep | {"id": "b"}]
    assert any(one.startswith("I10: 2 live actors") for one in check_rows(rows(actors=both)))


def test_the_verdict_is_that_of_all_parts():
    evidence = replace(seen(refused("core.internal_error"), sockets=[socket([1], sent=2)]))
    evidence.facts.set_aside.append({"key": "a"})
    evidence.journals = [event("actor_start", 0)]
    told = " ".join(check(evidence))
    assert all(sign in told for sign in ("I3", "I7", "I16", "set aside"))
