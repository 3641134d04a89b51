"""The engines and applications the stories are told with.

A story names its engines with `@engines(...)`; one engine serves all stories that name it and is stopped
before the next one starts. Each story has an application and a pool of its own. With pytest-xdist,
`--dist loadgroup` keeps the stories of one engine on one worker.
"""

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from tests.support import postgres, valkey
from tests.support.cluster import Cluster
from tests.support.endpoint import Endpoint, node_endpoint, sdk_endpoint

ENGINE = pytest.StashKey[tuple[Cluster, dict[str, int]]]()
ADMIN_TOKEN = "the-admins-token"
LOST_SOON = {"TORPOR_SERVERLESS_CLAIM_MS": "2000"}  # a connector that died is missed after two seconds
_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: breaks the engine, whose logs may tell of it")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running engine, by its name `store-server`, or `store-server-guarded` if it asks for tokens."""
    store, server, *guarded = request.param.split("-")
    directory = tmp_path_factory.mktemp(request.param)
    with (
        valkey.running() as redis_url,
        _database(store, directory) as database_url,
        Cluster(
            directory, database_url, redis_url, server, env=LOST_SOON, token=ADMIN_TOKEN if guarded else None
        ) as engine,
    ):
        yield engine


def _database(store: str, directory: Path) -> AbstractContextManager[str]:
    """Return the URL of an empty database that is there while its context lasts."""
    return postgres.running() if store == "postgresql" else nullcontext(f"sqlite:///{directory}/torpor.sqlite3")


@pytest.fixture
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Endpoint]:
    """A running serverless application: `sdk` or `node-RELEASE`."""
    kind = getattr(request, "param", "node-2.2.1")
    made = sdk_endpoint(tmp_path) if kind == "sdk" else node_endpoint(tmp_path, kind.removeprefix("node-"))
    with made as running:
        yield running


@pytest.fixture
def pool(cluster: Cluster, endpoint: Endpoint) -> Iterator[str]:
    """The name of a serverless pool of one-slot runners of `endpoint`, of no other story."""
    name = f"pool-{next(_numbers)}"
    cluster.api.put_serverless_pool(name, endpoint.url)
    yield name
    cluster.api.delete_pool(name)


@pytest.fixture(autouse=True)
def _watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look at what the engine writes during the story: without a fault, it has no errors to tell of."""
    if "cluster" not in request.fixturenames:
        yield
        return
    engine: Cluster = request.getfixturevalue("cluster")
    marks = engine.marks()
    request.node.stash[ENGINE] = (engine, marks)
    yield
    if request.node.get_closest_marker("faults") is None:
        logs = engine.logs(marks)
        assert not [sign for sign in ("Traceback", " ERROR ", " CRITICAL ") if sign in logs]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the processes wrote during a story that failed."""
    report = yield
    if report.failed and ENGINE in item.stash:
        engine, marks = item.stash[ENGINE]
        report.sections.append(("engine", engine.logs(marks)))
        application = item.funcargs.get("endpoint")
        if application is not None:
            report.sections.append(("application", application.output()))
    return report
