"""The console has a database thread of its own."""

import sys

import pytest

from tests.support.web import close_connections


@pytest.fixture(scope="session", autouse=True)
def _console_thread():
    yield
    if (watcher := sys.modules.get("console.watcher")) is not None:
        close_connections(watcher._threads)
