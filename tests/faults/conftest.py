"""One fleet for all tests that break something: it is whole again after each of them."""

import pytest

from tests.faults.fleet import Fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running
