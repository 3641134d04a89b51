"""The console has a database thread of its own, and Channels looks a session up in another."""

import sys

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from tests.support.web import close_connections


@pytest.fixture(scope="session", autouse=True)
def _console_thread():
    yield
    if (watcher := sys.modules.get("console.watcher")) is not None:
        close_connections(watcher._threads)


@pytest.fixture
async def engine_url(engine_url):
    yield engine_url
    await sync_to_async(connections.close_all)()
