import itertools

import pytest

from orchestrator.supervisor import LONGEST_DELAY_SECONDS, WELL_SECONDS, restart_delay


@pytest.mark.parametrize(
    ("previous", "ran", "delay"),
    [
        (0, 0, 0.5),
        (0.5, 0, 1),
        (1, WELL_SECONDS - 1, 2),
        (16, 0, LONGEST_DELAY_SECONDS),
        (LONGEST_DELAY_SECONDS, 0, LONGEST_DELAY_SECONDS),
        (LONGEST_DELAY_SECONDS, WELL_SECONDS, 0.5),
    ],
)
def test_the_wait_doubles_until_a_child_runs_well(previous: float, ran: float, delay: float) -> None:
    assert restart_delay(previous, ran) == delay


def test_a_child_that_keeps_dying_is_still_tried_every_half_minute() -> None:
    delays = list(itertools.accumulate(range(10), lambda previous, _: restart_delay(previous, 0), initial=0.0))
    assert delays[1:] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
