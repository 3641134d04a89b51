import pytest

from tests.faults.slopes import slope


def test_what_stays_level_has_no_slope_and_what_grows_has_its_own():
    assert slope([(s, 7.0) for s in range(100)]).per_hour == 0
    assert slope([(s, 2.0 * s) for s in range(100)]).per_hour == pytest.approx(7200)
    assert slope([(s, 100 + (s % 2)) for s in range(200)]).per_hour == pytest.approx(0, abs=5)


def test_the_beginning_is_left_out():
    warmed_up = slope([(s, min(s, 20.0)) for s in range(100)])
    assert (warmed_up.first, warmed_up.per_hour) == (20.0, 0)


def test_a_single_sample_says_nothing_of_growth():
    assert slope([(0.0, 5.0)]).per_hour == 0
