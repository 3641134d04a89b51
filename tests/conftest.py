"""What every test shares: an environment of its own, set before Django reads it.

Each test process has one directory with its database and its Valkey; nothing of the developer's environment
is seen. `TORPOR_TEST_STORE=postgresql` puts the database on a throw-away PostgreSQL instead of SQLite. The
servers start when the first test asks for them. With `CI` set, a test that is skipped has failed: what it
needs must be there.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
import hypothesis
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from tests.support import postgres, valkey

pytest_plugins = ["tests.support.engines", "runners.sdk.testing.fixtures"]

STORE = os.environ.get("TORPOR_TEST_STORE", "sqlite")
DIRECTORY = Path(tempfile.mkdtemp(prefix="torpor-test-"))
NEEDS_POSTGRES = STORE == "postgresql"
hypothesis.settings.register_profile("torpor", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("torpor")
POSTGRES_DIRECTORY = postgres.new_directory() if NEEDS_POSTGRES and postgres.is_installed() else None


def _set_environment() -> None:
    """Runs in the main process and again in each of pytest-xdist's, which inherit the former's."""
    assert not settings.configured, "unset DJANGO_SETTINGS_MODULE: the settings were read too early"
    assert STORE in ("sqlite", "postgresql"), f"TORPOR_TEST_STORE={STORE!r}: must be sqlite or postgresql"
    for name in [name for name in os.environ if name.startswith("TORPOR_") and name != "TORPOR_TEST_STORE"]:
        del os.environ[name]
    sqlite_url = f"sqlite:///{DIRECTORY}/torpor.sqlite3"
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "orchestrator.settings",
        "TORPOR_STATE": str(DIRECTORY),
        "TORPOR_SECRET_KEY": "a key for tests alone",
        "REDIS_URL": f"unix://{DIRECTORY}/redis.sock?db=0",
        "DATABASE_URL": postgres.url(POSTGRES_DIRECTORY, "torpor") if POSTGRES_DIRECTORY else sqlite_url,
    }


_set_environment()


def pytest_configure() -> None:
    django.setup()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Keep pytest-django in the processes about to start from reading the settings before they come here."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


def pytest_unconfigure() -> None:
    shutil.rmtree(DIRECTORY, ignore_errors=True)  # it may have been tidied away by hand
    if POSTGRES_DIRECTORY is not None:
        shutil.rmtree(POSTGRES_DIRECTORY, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL run what touches the database alone: the rest would do the same as on SQLite."""
    if NEEDS_POSTGRES:
        left_out = [item for item in items if not _uses_database(item)]
        items[:] = [item for item in items if _uses_database(item)]
        config.hook.pytest_deselected(items=left_out)


def _uses_database(item: pytest.Item) -> bool:
    fixtures = {"db", "transactional_db", "django_db_setup", "live_server"}
    return item.get_closest_marker("django_db") is not None or bool(fixtures.intersection(item.fixturenames))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of this test process's Valkey, which the settings name; running."""
    with valkey.running(DIRECTORY) as url:
        yield url


@pytest.fixture(scope="session")
def database_server() -> Iterator[None]:
    """The server of the database that the settings name, if it needs one; running."""
    if POSTGRES_DIRECTORY is None:
        if NEEDS_POSTGRES:
            pytest.skip(postgres.MISSING)
        yield
        return
    with postgres.server(POSTGRES_DIRECTORY) as server:
        server.create_database("torpor")
        yield


@pytest.fixture(scope="session")
def django_db_setup(database_server: None, django_db_blocker: pytest.FixtureRequest) -> Iterator[None]:
    """Create the tables in the very database that the settings name, so that child processes find them too."""
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
    yield
    with django_db_blocker.unblock():
        connections.close_all()


@pytest.fixture(autouse=True)
def _needs_postgres(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("postgres") and not postgres.is_installed():
        pytest.skip(postgres.MISSING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    return _not_skipped_in_ci(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    return _not_skipped_in_ci(report)


def _not_skipped_in_ci(report):
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as failed in CI: {report.longrepr}"
    return report
