"""What an actor said to a WebSocket, and whether a broken connection has taken something along."""

import pytest

from gateway.said import Place, Said


def said(*indexes, interrupted_before=None):
    """Return for each number whether nothing before it is missing."""
    log, whole = Said(), []
    for index in indexes:
        if index == interrupted_before:
            log.interrupted()
        whole.append(log.take(index) is not Place.BEYOND)
    return whole


@pytest.mark.parametrize("numbers", [(4, 5, 6), (65534, 65535, 0, 1), (65535, 0), (7, 7), (7, 5), (7, 0, 9)])
def test_what_goes_on_or_is_said_again_after_an_interruption_is_whole(numbers):
    assert all(said(*numbers, interrupted_before=numbers[-1]))


@pytest.mark.parametrize("numbers", [(4, 6), (65535, 1), (65530, 3), (1, 30_000)])
def test_what_leaves_something_out_after_an_interruption_is_not(numbers):
    assert said(*numbers, interrupted_before=numbers[-1]) == [True, False]
    assert all(said(*numbers)), "on one connection nothing gets lost: some clients count in their own way"


def test_only_the_first_after_an_interruption_is_looked_at():
    assert said(1, 2, 9, 20, interrupted_before=2) == [True] * 4


def test_nothing_is_missing_only_if_1_follows_the_open():
    for first, is_whole in ((1, True), (2, False)):
        log = Said()
        log.opened(0)
        log.interrupted()
        assert (log.take(first) is Place.NEXT) == is_whole


def test_a_life_that_has_said_nothing_may_begin_with_any_number():
    assert said(17, interrupted_before=17) == [True]


@pytest.mark.parametrize(
    ("number", "place"), [(7, Place.AGAIN), (8, Place.NEXT), (9, Place.BEYOND), (0, Place.NEXT)]
)
def test_what_was_said_last_before_an_interruption_is_known_when_it_is_said_again(number, place):
    log = Said()
    assert log.take(7) is Place.NEXT
    log.interrupted()
    assert log.take(number) is place
    assert log.take(number + 1) is Place.NEXT
