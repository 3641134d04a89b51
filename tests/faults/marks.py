"""How tests of a whole fleet are marked."""

import pytest


def on_a_fleet(seconds: int) -> list[pytest.MarkDecorator]:
    """Return the marks of tests that share the one fleet, and may take so long each."""
    mark = pytest.mark
    return [mark.e2e, mark.faults, mark.postgres, mark.xdist_group("faults"), mark.timeout(seconds)]
