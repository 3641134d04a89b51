"""The servers, each run once per module."""

from collections.abc import Iterator

import pytest

from tests.support.served import Served, running

SERVERS = ["daphne", "uvicorn"]


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A running server with the application of `tests.support.served_app`; a test that ends it fails all."""
    with running(request.param, tmp_path_factory.mktemp("served")) as child:
        yield child
        assert child.alive, child.output()
