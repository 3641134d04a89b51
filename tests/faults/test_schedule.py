from collections import Counter
from itertools import pairwise

from tests.faults.injection import ACTIONS
from tests.faults.schedule import KINDS, schedule


def test_a_seed_is_always_the_same_schedule_and_another_one_another():
    assert schedule(7, 40, 100.0) == schedule(7, 40, 100.0)
    assert schedule(7, 40, 100.0) != schedule(8, 40, 100.0)


def test_faults_come_in_order_within_their_time():
    faults = schedule(3, 30, 60.0)
    assert len(faults) == 30
    assert all(one.at <= other.at for one, other in pairwise(faults))
    assert faults[0].at >= 0
    assert faults[-1].at < 60


def test_every_kind_is_drawn_as_often_as_its_weight_says():
    weights = {name: kind.weight for name, kind in KINDS.items()}
    drawn = Counter(fault.kind for fault in schedule(1, sum(weights.values()), 100.0))
    assert drawn == weights


def test_a_fault_lasts_as_long_as_its_kind_may():
    for fault in schedule(5, 200, 100.0):
        shortest, longest = KINDS[fault.kind].lasts
        assert shortest <= fault.seconds <= longest


def test_some_faults_come_together():
    faults = schedule(2, 24, 100.0)
    assert sum(one.at == other.at for one, other in pairwise(faults)) == 4


def test_only_the_kinds_asked_for_are_drawn():
    assert {fault.kind for fault in schedule(1, 10, 10.0, ["kill web", "wipe valkey"])} == {
        "kill web",
        "wipe valkey",
    }


def test_something_is_done_for_every_kind():
    assert ACTIONS.keys() >= KINDS.keys()
