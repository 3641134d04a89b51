"""What the console tells of the last minutes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from console.pulse import BOUNDS_MS, FAILURES_SHOWN, OPEN_WAKES, Happened, Pulse

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACTOR = "Actor workflow"


def wake(id_: int, seconds: float, actor: str = "a") -> Happened:
    return Happened(id_, NOON + timedelta(seconds=seconds), actor, "", "wake", ACTOR, "pending")


def runs(id_: int, seconds: float, actor: str = "a") -> Happened:
    return Happened(id_, NOON + timedelta(seconds=seconds), actor, "r", "running", ACTOR, "running")


def lost(id_: int, seconds: float = 0) -> Happened:
    return Happened(id_, NOON + timedelta(seconds=seconds), "a", "", "runner lost", ACTOR, "asleep")


def heard(*arrows: Happened, at: float = 0) -> Pulse:
    pulse = Pulse()
    pulse.hear(arrows, NOON + timedelta(seconds=at))
    return pulse


def test_a_wake_counts_in_its_second_and_for_its_length():
    pulse = heard(wake(1, -3), runs(2, -2.5), at=0)
    assert pulse.wakes_by_second(NOON)[-3:] == [1, 0, 0]
    assert sum(pulse.wakes_by_second(NOON)) == 1
    assert pulse.quantile_ms(0.5) == 500
    assert pulse.histogram()[BOUNDS_MS.index(500)] == sum(pulse.histogram()) == 1


def test_an_arrow_read_twice_or_late_counts_once():
    pulse = heard(wake(1, -2), runs(2, -1))
    pulse.hear([wake(1, -2), runs(2, -1), wake(0, -1.5, "b"), runs(3, -0.5, "b")], NOON)
    assert sum(pulse.wakes_by_second(NOON)) == 2
    assert pulse.last_id == 3


def test_what_is_long_past_is_let_go_of():
    pulse = heard(wake(1, -400), runs(2, -399), wake(3, -70, "b"), runs(4, -69, "b"))
    assert sum(pulse.wakes_by_second(NOON)) == 0
    assert sum(pulse.histogram()) == 1


def test_a_wake_longer_than_all_bounds_is_counted_last():
    assert heard(wake(1, -60), runs(2, -1)).histogram()[-1] == 1


def test_a_second_call_does_not_shorten_the_wake():
    pulse = heard(wake(1, -3), wake(2, -1), runs(3, -0.9))
    assert pulse.quantile_ms(0.99) == 2100


def test_failures_are_kept_the_newest_first_and_not_too_many():
    pulse = heard(*(replace(lost(n), actor_id=f"actor{n}") for n in range(1, FAILURES_SHOWN + 5)))
    assert [failure.newest.id for failure in pulse.failures][:2] == [FAILURES_SHOWN + 4, FAILURES_SHOWN + 3]
    assert len(pulse.failures) == FAILURES_SHOWN


def test_a_crash_is_a_failure_and_a_graceful_stop_is_none():
    stopped = Happened(1, NOON, "a", "r", "stopped", ACTOR, "asleep")
    crashed = Happened(2, NOON, "a", "r", "stopped", ACTOR, "backoff")
    assert [failure.newest.id for failure in heard(stopped, crashed).failures] == [2]


def test_the_same_failure_in_a_row_is_one_that_came_often():
    other = replace(lost(4), label="failed: serverless_http_error", actor_id="", pool_id="p")
    shown = heard(lost(1), lost(2), lost(3), other, lost(5)).failures
    assert [(failure.newest.id, failure.times) for failure in shown] == [(5, 1), (4, 1), (3, 3)]


def test_wakes_that_never_end_do_not_pile_up():
    pulse = heard(*(wake(n, -1, f"actor{n}") for n in range(1, OPEN_WAKES + 10)))
    assert len(pulse._began) == OPEN_WAKES


def test_nothing_has_no_quantile():
    assert (heard().quantile_ms(0.5), heard().last_id) == (None, 0)
