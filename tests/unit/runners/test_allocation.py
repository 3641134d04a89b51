"""Which runner gets an actor (PROTOCOL §4.8)."""

import random
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from runners.allocation import Candidate, allocate


def taken(candidates: list[Candidate], draw: float) -> str | None:
    chosen = allocate(candidates, lambda: draw)
    return chosen.runner_id if chosen else None


@pytest.mark.parametrize("candidates", [[], [Candidate("a", 5, 0)], [Candidate("a", 5, 0), Candidate("b", 1, 0)]])
def test_there_is_no_slot_where_none_is_free(candidates):
    assert taken(candidates, 0.5) is None


@pytest.mark.parametrize(
    ("draw", "runner"),
    [(0.0, "a"), (0.19, "a"), (0.21, "b"), (0.59, "b"), (0.61, "d"), (0.999999, "d")],
)
def test_the_draw_falls_by_the_share_of_free_slots(draw, runner):
    candidates = [
        Candidate("a", 8, 2),
        Candidate("b", 2, 1),
        Candidate("c", 4, 0),
        Candidate("d", 100, 50),
    ]
    assert taken(candidates, draw) == runner


def test_a_slot_is_taken_off_the_runner_that_gives_it():
    candidates = [Candidate("a", 2, 2)]
    assert [taken(candidates, 0.5) for _ in range(3)] == ["a", "a", None]
    assert candidates[0].free_slots == 0


def test_an_emptier_runner_is_chosen_more_often():
    draw = random.Random(1).random
    chosen = Counter(allocate([Candidate("a", 4, 1), Candidate("b", 4, 3)], draw).runner_id for _ in range(4000))
    assert 0.70 < chosen["b"] / 4000 < 0.80


sizes = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=6)
draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=60, max_size=60)


@given(sizes, draws)
def test_every_free_slot_is_given_once_and_none_twice(sizes, draws):
    candidates = [Candidate(str(i), total, min(free, total)) for i, (total, free) in enumerate(sizes)]
    free = {candidate.runner_id: candidate.free_slots for candidate in candidates}
    given_out = Counter(runner_id for draw in draws if (runner_id := taken(candidates, draw)) is not None)
    assert given_out == Counter(free)
