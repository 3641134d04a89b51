"""The simulator, on many seeds."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.run import Outcome, simulate
from tests.simulation.world import NONE

SEEDS = [int(seed) for seed in os.environ.get("SIMULATE_SEEDS", "").split()] or range(1, 13)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fault_breaks_an_invariant(seed: int, record_property: Callable[[str, Any], None]) -> None:
    outcome = simulate(seed)
    record_property("simulated", numbers(outcome))
    assert outcome.counts["request answered"] > 20, outcome.counts


def numbers(outcome: Outcome) -> dict[str, int]:
    """Return what is added up over all runs; see `conftest.py`."""
    faults = sum(count for what, count in outcome.counts.items() if what.startswith("fault: "))
    requests = sum(count for what, count in outcome.counts.items() if what.startswith("request "))
    return {"runs": 1, "steps": outcome.steps, "faults": faults, "requests": requests}


def test_without_faults_every_request_is_answered() -> None:
    outcome = simulate(1000, faults=NONE)
    assert outcome.counts["request answered"] > 50
    outcomes = {what for what in outcome.counts if what.startswith("request ")}
    assert outcomes <= {"request answered", "request gone"}, outcome.counts


def test_a_seed_is_a_run() -> None:
    assert simulate(77, seconds=15) == simulate(77, seconds=15)
