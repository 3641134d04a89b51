"""What a runner says it can do, read with care."""

import pytest

from runners.features import NONE, Features, read_features


def test_a_runner_of_ours_says_what_it_can_do():
    told = {"request_streaming": True, "multi_headers": True, "response_window": 1_048_576}
    assert read_features({"torpor": told, "other": 1}) == Features(True, True, 1_048_576, True)
    assert read_features({"torpor": {}}) == Features(numbered=True)


@pytest.mark.parametrize("metadata", [None, {}, [], "torpor", {"torpor": None}, {"torpor": "x"}, {"torpor": []}])
def test_a_runner_that_says_nothing_gets_nothing_new(metadata):
    assert read_features(metadata) == NONE


@pytest.mark.parametrize("window", [0, 1, -5, True, "1048576", 1e6, None])
def test_a_window_that_makes_no_sense_is_none(window):
    told = {"request_streaming": "yes", "response_window": window}
    assert read_features({"torpor": told}) == Features(numbered=True)
