"""A short run for every change: a few faults of every sort. `make faults` has many more."""

import pytest

from tests.faults.fleet import Fleet
from tests.faults.run import run

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.postgres,
    pytest.mark.xdist_group("faults"),
    pytest.mark.timeout(400),
]

SEED = 1
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
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


def test_faults_of_every_sort_break_no_promise(fleet):
    outcome = run(fleet, SEED, faults=len(KINDS), seconds=25, kinds=KINDS, fewest=3)
    assert list(outcome.violations) == []
    assert len(outcome.history.injected) >= len(KINDS) - 2  # a point nobody came to, a store that was away anyway
