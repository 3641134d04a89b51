"""One clock for all processes: readings of the database's, and what is made of them."""

import pytest

from orchestrator import clock
from orchestrator.clock import KEEP_SECONDS, Reading, better, read

HOUR = 3600.0


@pytest.fixture(autouse=True)
def machine_clock():
    before = clock._kept.reading
    clock.forget()
    yield
    clock._kept.reading = before


def test_what_the_database_tells_is_the_time_half_the_way():
    assert read(100.0, 5_000.0, 100.5) == Reading(offset=4_899.75, width=0.5, taken_at=100.5)


@pytest.mark.parametrize(
    ("kept", "new", "best"),
    [
        (None, Reading(1, 0.9, 0), "new"),
        (None, Reading(1, 1.1, 0), None),
        (Reading(1, 0.2, 0), Reading(2, 0.1, 5), "new"),
        (Reading(1, 0.2, 0), Reading(2, 0.3, 5), "kept"),
        (Reading(1, 0.2, 0), Reading(2, 0.3, KEEP_SECONDS + 1), "new"),
        (Reading(1, 0.2, 0), Reading(2, 1.1, KEEP_SECONDS + 1), "kept"),
    ],
)
def test_the_more_exact_reading_is_kept_until_it_is_old(kept, new, best):
    assert better(kept, new) == {"kept": kept, "new": new, None: None}[best]


def test_a_process_goes_by_what_it_has_read_and_not_by_its_machine(monkeypatch):
    monkeypatch.setattr(clock.time, "monotonic", lambda: 50.0)
    clock.take(read(50.0, 7_000.0, 50.0))
    monkeypatch.setattr(clock.time, "time", lambda: 7_000.0 + HOUR)
    monkeypatch.setattr(clock.time, "monotonic", lambda: 53.0)
    assert clock.seconds() == 7_003.0
    assert clock.now().timestamp() == 7_003.0


def test_before_it_has_read_anything_it_goes_by_its_machine(monkeypatch):
    monkeypatch.setattr(clock.time, "time", lambda: 1_000.0)
    assert clock.seconds() == 1_000.0
