from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from orchestrator.moments import EPOCH, from_ms, from_us, to_ms, to_optional_ms, to_us


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC)))
def test_microseconds_there_and_back_are_the_same_moment(moment):
    assert from_us(to_us(moment)) == moment


@given(st.integers(min_value=-(10**13), max_value=10**14))
def test_milliseconds_there_and_back_are_the_same_number(ms):
    assert to_ms(from_ms(ms)) == ms


@given(st.integers())
def test_every_number_is_a_moment_and_order_is_kept(ms):
    assert from_ms(ms) <= from_ms(ms + 1)


@pytest.mark.parametrize(
    ("moment", "ms"),
    [
        (EPOCH, 0),
        (EPOCH + timedelta(microseconds=999), 0),
        (EPOCH + timedelta(milliseconds=1), 1),
        (EPOCH - timedelta(microseconds=1), -1),
        (None, None),
    ],
)
def test_a_moment_in_milliseconds_is_rounded_down(moment, ms):
    assert to_optional_ms(moment) == ms
