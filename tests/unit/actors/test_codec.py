"""Signals as JSON, for the mailbox and the timeline."""

import json
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given, strategies as st

from actors import life
from actors.codec import decode_signal, encode_signal, knows
from tests.unit.actors.lives import signals

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

# Shapes that are in mailboxes and timelines already: they may grow but not change.
SHAPES = [
    (life.Start(), {"t": "start"}),
    (life.Wake("GET /x", again=True), {"t": "wake", "request": "GET /x", "again": True}),
    (life.SlotFree(), {"t": "slot_free"}),
    (life.Allocated("r1", called=True), {"t": "allocated", "runner_id": "r1", "called": True}),
    (life.NoSlot(on_demand=False), {"t": "no_slot", "on_demand": False}),
    (
        life.FromRunner("r1", 3, 7, life.RunningReport()),
        {"t": "from_runner", "runner_id": "r1", "generation": 3, "index": 7, "report": {"t": "running"}},
    ),
    (
        life.FromRunner("r1", 3, 7, life.SleepIntent()),
        {"t": "from_runner", "runner_id": "r1", "generation": 3, "index": 7, "report": {"t": "sleep_intent"}},
    ),
    (
        life.FromRunner("r1", 3, 7, life.StopIntent()),
        {"t": "from_runner", "runner_id": "r1", "generation": 3, "index": 7, "report": {"t": "stop_intent"}},
    ),
    (
        life.FromRunner("r1", 3, 7, life.StoppedReport(False, "boom")),
        {
            "t": "from_runner",
            "runner_id": "r1",
            "generation": 3,
            "index": 7,
            "report": {"t": "stopped", "ok": False, "message": "boom"},
        },
    ),
    (
        life.FromRunner("r1", 3, 7, life.AlarmReport(NOON)),
        {
            "t": "from_runner",
            "runner_id": "r1",
            "generation": 3,
            "index": 7,
            "report": {"t": "alarm", "at_ms": 1772366400000},
        },
    ),
    (
        life.FromRunner("r1", 3, 7, life.SleepIntent(), NOON),
        {
            "t": "from_runner",
            "runner_id": "r1",
            "generation": 3,
            "index": 7,
            "report": {"t": "sleep_intent"},
            "heard_at": "2026-03-01T12:00:00+00:00",
        },
    ),
    (
        life.FromRunner("r1", 3, 7, life.SleepIntent(), after=6),
        {
            "t": "from_runner",
            "runner_id": "r1",
            "generation": 3,
            "index": 7,
            "report": {"t": "sleep_intent"},
            "after": 6,
        },
    ),
    (
        life.RunnerLost("r1", NOON, life.FailureKind.RUNNER_DRAINING_TIMEOUT),
        {
            "t": "runner_lost",
            "runner_id": "r1",
            "seen_at": "2026-03-01T12:00:00+00:00",
            "kind": "runner_draining_timeout",
        },
    ),
    (life.Missing("r1", 3), {"t": "missing", "runner_id": "r1", "generation": 3}),
    (
        life.RunnerDraining("r1", NOON),
        {"t": "runner_draining", "runner_id": "r1", "until": "2026-03-01T12:00:00+00:00"},
    ),
    (life.Sleep(), {"t": "sleep"}),
    (life.Reschedule(), {"t": "reschedule"}),
    (life.Destroy(), {"t": "destroy"}),
    (life.Tick(), {"t": "tick"}),
]


def test_the_shapes_cover_every_signal_and_report():
    covered = {type(signal) for signal, _ in SHAPES}
    reports = {type(signal.report) for signal, _ in SHAPES if isinstance(signal, life.FromRunner)}
    assert covered == set(get_args(life.Signal))
    assert reports == set(get_args(life.Report))


@pytest.mark.parametrize(("signal", "encoded"), SHAPES, ids=lambda value: type(value).__name__)
def test_a_signal_has_its_shape(signal, encoded):
    assert encode_signal(signal) == encoded
    assert decode_signal(encoded) == signal


def test_what_may_be_left_out_has_its_default():
    assert decode_signal({"t": "wake"}) == life.Wake()
    lost = decode_signal({"t": "runner_lost", "runner_id": "r1", "seen_at": "2026-03-01T12:00:00+00:00"})
    assert lost == life.RunnerLost("r1", NOON)


@given(st.integers(0, 253_402_300_799_000))
def test_an_alarm_keeps_its_millisecond(at_ms):
    report = {"t": "alarm", "at_ms": at_ms}
    encoded = {"t": "from_runner", "runner_id": "r1", "generation": 0, "index": 0, "report": report}
    assert encode_signal(decode_signal(encoded)) == encoded


@pytest.mark.parametrize(("at_ms", "year"), [(-1, 1970), (-(2**63), 1970), (2**63 - 1, 9999)])
def test_an_alarm_out_of_the_calendar_is_brought_back_into_it(at_ms, year):
    report = {"t": "alarm", "at_ms": at_ms}
    encoded = {"t": "from_runner", "runner_id": "r1", "generation": 0, "index": 0, "report": report}
    assert decode_signal(encoded).report.at.year == year


@given(signals)
def test_decoding_undoes_encoding_through_json(signal):
    assert decode_signal(json.loads(json.dumps(encode_signal(signal)))) == signal


@pytest.mark.parametrize(
    "encoded",
    [
        {},
        {"t": "nothing of ours"},
        {"t": "running"},
        {"t": "no_slot"},
        {"t": "allocated"},
        {"t": "missing", "runner_id": "r1"},
        {"t": "from_runner", "runner_id": "r1", "generation": 3, "index": 7, "report": {"t": "tick"}},
        {"t": "from_runner", "runner_id": "r1", "generation": 3, "index": 7, "report": {}},
    ],
    ids=str,
)
def test_anything_else_is_refused(encoded):
    with pytest.raises((KeyError, TypeError)):
        decode_signal(encoded)


@pytest.mark.parametrize(("signal", "encoded"), SHAPES)
def test_what_a_later_release_has_added_is_passed_over(signal, encoded):
    later = encoded | {"later": [1]}
    if "report" in later:
        later["report"] = later["report"] | {"later": [1]}
    assert decode_signal(later) == signal
    assert knows(later)


@pytest.mark.parametrize("encoded", [{"t": "later"}, {"t": "from_runner", "report": {"t": "later"}}])
def test_a_kind_that_only_a_later_release_has_is_not_known(encoded):
    assert not knows(encoded)
