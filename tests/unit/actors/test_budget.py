"""Where the time of a wake goes, by the arrows recorded of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from actors.budget import Phase, budgets

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Told:
    at: datetime
    label: str
    source: str = "Actor workflow"
    target: str = "Actor workflow"
    generation: int | None = None


def arrow(ms: int, label: str, generation: int | None = None, **ends: str) -> Told:
    return Told(NOON + timedelta(milliseconds=ms), label, generation=generation, **ends)


REQUEST = arrow(0, "GET /", source="User", target="Gateway")
COLD = [
    REQUEST,
    arrow(1, "wake"),
    arrow(3, "allocate: no runner free, pending"),
    arrow(4, "bump"),
    arrow(10, "GET /start"),
    arrow(110, "connect, init"),
    arrow(112, "registered"),
    arrow(115, "allocate pending"),
    arrow(116, "StartActor", 0),
    arrow(136, "running", 0),
    arrow(137, "ready", 0),
    arrow(138, "request start", 0),
    arrow(148, "response start", 0),
]


def lengths(wake) -> dict[str, float]:
    return wake.as_json()["phases_ms"]


def test_a_cold_wake_has_every_phase_and_they_add_up():
    [wake] = budgets(COLD)
    assert lengths(wake) == {
        "resolve": 1,
        "allocate": 9,
        "start": 100,
        "connect": 5,
        "start_actor": 1,
        "running": 20,
        "first_byte": 12,
    }
    assert wake.total == timedelta(milliseconds=148)
    assert (wake.began_at, wake.generation) == (NOON, 0)


def test_a_warm_wake_has_no_start():
    arrows = [REQUEST, arrow(1, "wake"), arrow(4, "allocate"), arrow(5, "StartActor"), arrow(9, "running", 3)]
    [wake] = budgets(arrows)
    assert lengths(wake) == {"resolve": 1, "allocate": 3, "start_actor": 1, "running": 4}
    assert wake.generation == 3


def test_each_wake_is_told_apart():
    slept = [arrow(200, "intent: sleep", 0), arrow(210, "stopped", 0)]
    again = [
        arrow(1_000, "wake"),
        arrow(1_004, "allocate"),
        arrow(1_005, "StartActor"),
        arrow(1_009, "running", 1),
    ]
    wakes = budgets([*COLD, *slept, *again])
    assert [wake.generation for wake in wakes] == [0, 1]
    assert wakes[1].began_at == again[0].at


def test_a_wake_that_nobody_asked_an_answer_of_ends_when_it_stops():
    arrows = [arrow(0, "alarm due"), arrow(1, "allocate"), arrow(2, "StartActor"), arrow(3, "running", 0)]
    wakes = budgets([*arrows, arrow(50, "intent: sleep", 0), arrow(60, "alarm due"), arrow(62, "allocate")])
    assert [wake.total for wake in wakes] == [timedelta(milliseconds=3), timedelta(milliseconds=2)]


def test_a_second_start_request_does_not_begin_the_phase_anew():
    arrows = [arrow(0, "wake"), arrow(5, "GET /start"), arrow(9, "GET /start"), arrow(20, "connect, init")]
    [wake] = budgets(arrows)
    assert lengths(wake) == {"resolve": 0, "allocate": 5, "start": 15}


def test_every_phase_is_one_an_arrow_ends():
    assert {phase for phase, _ in budgets(COLD)[0].phases} == set(Phase)


def test_nothing_recorded_is_no_wake():
    assert budgets([]) == []
    assert budgets([arrow(0, "registered"), arrow(1, "running", 0)]) == []
