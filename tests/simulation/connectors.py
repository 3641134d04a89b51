"""Serverless connectors and endpoints in a simulated world, around the real claims."""

from datetime import timedelta
from typing import Any

from orchestrator.ids import new_id
from orchestrator.workflow import mailbox
from runners import claims
from runners.claims import Claimed, Held
from tests.simulation.engine import Engine
from tests.simulation.processes import Census, Process
from tests.simulation.world import World

LOOK_SECONDS = 1.0


class Stream:
    """One `/start` request: the connector's end, and the endpoint with the runner it starts."""

    def __init__(self, connector: "Connector", request: Claimed) -> None:
        self.connector, self.request = connector, request
        self.world = connector.world
        self.open = True
        self.process: Process | None = None
        self.world.later(0.002, self._endpoint)

    def _endpoint(self) -> None:
        if not self.open:
            return None
        if self.world.chance(self.world.faults.endpoint_fails, "endpoint answers 500"):
            return self.end({"serverless_http_error": {"status_code": 500, "body": ""}})
        self.connector.tell(self.request, {"t": "opened", "status": 200})
        self.world.later(self.world.random.uniform(0.005, 0.5), self._start_runner)
        return None

    def _start_runner(self) -> None:
        if self.open:
            process = Process(
                self.world,
                self.connector.engine,
                self.connector.census,
                pool=self.request.pool,
                slots=self.request.slots,
                on_init=self._init,
                on_end=lambda: self.end(None),
            )
            self.process = process
            self.connector.processes.append(process)

    def _init(self, runner_id: str) -> None:
        if self.open:
            self.connector.ready[self.request.id] = (self.request.pool_id, runner_id)
            self.connector.tell(self.request, {"t": "ready", "runner_id": runner_id})

    def end(self, error: Any) -> None:
        """End the stream, by either side; the runner goes away gracefully."""
        if not self.open:
            return
        self.open = False
        if self.process:
            self.process.leave()
        self.connector.ended(self, error)


class Connector:
    """Holds streams; a dead one's are begun anew by another when its lease is over."""

    def __init__(self, world: World, engine: Engine, census: Census, processes: list[Process]) -> None:
        self.world, self.engine, self.census, self.processes = world, engine, census, processes
        self.id = new_id()
        self.alive = True
        self.streams: dict[str, Stream] = {}
        self.ready: dict[str, tuple[str, str]] = {}
        self._endings: dict[str, tuple[str, dict[str, Any]]] = {}
        engine.hint = self._look
        world.soon(self._keep_looking)
        if world.faults.connector_dies_every:
            world.later(world.random.expovariate(1 / world.faults.connector_dies_every), self._die)

    def _die(self) -> None:
        if self.alive and self.world.faults.connector_dies_every:
            self.world.chance(1.0, "connector killed")
            self.alive = False
            for stream in list(self.streams.values()):
                stream.open = False
                if stream.process:
                    stream.process.leave()
            self.world.later(1.0, Connector, self.world, self.engine, self.census, self.processes)

    def _keep_looking(self) -> None:
        if self.alive:
            self._look()
            self.world.later(LOOK_SECONDS, self._keep_looking)

    def _look(self) -> None:
        if not self.alive:
            return
        if self.streams or self._endings:
            held = claims.renew(connector_id=self.id, now=self.world.now)
            for id_, stream in list(self.streams.items()):
                if id_ not in held or held[id_].state == "closing":
                    stream.end(None)
            self._repeat(held)
        for request in claims.claim(connector_id=self.id, limit=100, now=self.world.now):
            self.world.counts["start requests"] += 1
            self.world.tell(f"connects {request.id[-6:]} GET /start")
            self.streams[request.id] = Stream(self, request)

    def _repeat(self, held: dict[str, Held]) -> None:
        for id_, (pool_id, signal) in list(self._endings.items()):
            if id_ in held:
                mailbox.post("pools", pool_id, signal)
            else:
                del self._endings[id_]
        for id_, (pool_id, runner_id) in self.ready.items():
            if id_ in held and not held[id_].named:
                mailbox.post("pools", pool_id, {"t": "ready", "request_id": id_, "runner_id": runner_id})

    def tell(self, request: Claimed, signal: dict[str, Any]) -> None:
        """Tell the pool what happened to a request."""
        if self.alive:
            mailbox.post("pools", request.pool_id, signal | {"request_id": request.id})

    def ended(self, stream: Stream, error: Any) -> None:
        """Note that a stream has ended, and tell the pool until it knows."""
        if not self.alive:
            return
        self.streams.pop(stream.request.id, None)
        self.ready.pop(stream.request.id, None)
        signal = {"t": "ended", "request_id": stream.request.id, "error": error}
        self._endings[stream.request.id] = (stream.request.pool_id, signal)
        mailbox.post("pools", stream.request.pool_id, signal)


def grace() -> timedelta:
    """The drain's grace of the simulated pools."""
    return timedelta(seconds=5)
