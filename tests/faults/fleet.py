"""An engine of many real processes, its stores and its runners, with a cable at every joint."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
import redis

from tests.faults import clocks
from tests.faults.points import DIRECTORY
from tests.support import postgres, valkey
from tests.support.child import Child
from tests.support.cluster import Cluster, Server
from tests.support.endpoint import Application, Endpoint, node_runner, sdk_endpoint, sdk_runner
from tests.support.relay import Relay

POOLS = ("npm", "sdk", "cloud")
WEB_OF_RUNNER = (0, 1, 0)
"""Which web process the runners of each pool connect to."""
SLOTS = 40
PG_SOCKET = ".s.PGSQL.5432"
LOST_SOON = {
    "TORPOR_SERVERLESS_CLAIM_MS": "2000",  # a connector that died is missed after two seconds
    "TORPOR_SERVERLESS_READY_MS": "5000",  # and a runner that was asked for, after five
}


class Fleet:
    """Two web processes, two workers, two connectors and a sweeper on PostgreSQL and Valkey, and three runners.

    npm: the npm client, long-lived, on the first web process. sdk: our SDK, long-lived, on the second. cloud: our
    SDK, started by the engine, on the first. While theirs is down they connect to the other one.
    """

    def __init__(self, directory: Path, server: Server = "uvicorn") -> None:
        self.directory = directory
        self.server = server
        self.points = directory / "points"
        self.points.mkdir(exist_ok=True)
        self.clocks = directory / "clocks"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        own = Path(tempfile.mkdtemp(prefix="torpor-faults-"))  # short of path, for the sockets
        self._stack.callback(shutil.rmtree, own, ignore_errors=True)
        own.chmod(0o755)
        self.valkey = valkey.Valkey(own)
        self._stack.callback(self.valkey.kill)
        self.valkey.start()
        self.postgres = self._stack.enter_context(postgres.server(None, "synchronous_commit=on"))
        self.postgres.create_database("torpor")
        self.valkey_cable = self._stack.enter_context(Relay(self.valkey.socket, own / "near.sock"))
        near = own / "pg"
        near.mkdir()
        self.postgres_cable = self._stack.enter_context(
            Relay(self.postgres.directory / PG_SOCKET, near / PG_SOCKET)
        )
        self.runner_cables = [self._stack.enter_context(Relay(0)) for _ in WEB_OF_RUNNER]
        database_url = postgres.url(near, "torpor")
        self.direct_url = postgres.url(self.postgres.directory, "torpor")
        env = {DIRECTORY: str(self.points), "TORPOR_PUBLIC_URL": self.runner_cables[2].url}
        self.cluster = Cluster(
            self.directory,
            database_url,
            f"unix://{own}/near.sock?db=0",
            self.server,
            workers=2,
            connectors=2,
            env=LOST_SOON | env | clocks.environment(self.clocks),
            celery="tests.faults.points",
        )
        self._stack.callback(self._stop_cluster)
        for cable, web in zip(self.runner_cables, WEB_OF_RUNNER, strict=True):
            ports = [int(url.rpartition(":")[2]) for url in self.cluster.urls]
            cable.lead_to(ports[web], *(port for port in ports if port != ports[web]))
        self.cluster.start()
        npm, sdk = (cable.url for cable in self.runner_cables[:2])
        self.runners: list[Application] = [
            node_runner(self.directory, npm, "npm", SLOTS, name="runner-npm"),
            sdk_runner(self.directory, sdk, "sdk", SLOTS, name="runner-sdk"),
        ]
        self.endpoint: Endpoint = sdk_endpoint(self.directory)
        for application in self.applications:
            self._stack.enter_context(application)
        for runner in self.runners:
            runner.wait("connected")
        self.cluster.api.put_serverless_pool("cloud", self.endpoint.url, slots_per_runner=SLOTS)
        self.cluster.api.send("POST", "/namespaces", json={"name": "strangers", "display_name": "strangers"})

    def _stop_cluster(self) -> None:
        """End the engine's processes at once: nobody is left to be told."""
        for child in self.cluster.children:
            child.kill()
        self.cluster.stop()

    @property
    def applications(self) -> list[Application]:
        return [*self.runners, self.endpoint]

    @property
    def urls(self) -> list[str]:
        return self.cluster.urls

    @property
    def processes(self) -> list[Child]:
        """Every process that is ours, the stores as well."""
        return [*self.cluster.children, *self.applications, self.valkey, self.postgres]

    def database(self) -> psycopg.Connection:
        """Return a connection to the database that no cable leads through."""
        return psycopg.connect(self.direct_url, autocommit=True, connect_timeout=5)

    def redis(self) -> redis.Redis:
        """Return a client of Valkey that no cable leads through."""
        return redis.Redis.from_url(self.valkey.url, socket_timeout=5)
