"""Fixtures for pytest: `pytest_plugins = ["runners.sdk.testing.fixtures"]` in the `conftest.py` of your tests."""

from collections.abc import Iterator

import pytest

from runners.sdk.testing.served import RunningEngine, running_engine


@pytest.fixture(scope="session")
def torpor_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """A real engine, which all tests that ask for it share."""
    with running_engine(tmp_path_factory.mktemp("torpor")) as engine:
        yield engine
