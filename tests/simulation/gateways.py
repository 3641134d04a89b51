"""Gateways and their clients in a simulated world, around the real watch and the real looks."""

from collections.abc import Callable
from typing import Any

from gateway import looks
from gateway.errors import ActorNotFound, ActorStopped, GatewayError
from gateway.watch import Exchange, Route, Watch
from runners import channel
from runners.protocol.messages import ActorIntentSleep, EventActorIntent
from tests.simulation.engine import Engine
from tests.simulation.processes import Process
from tests.simulation.world import World

READY_SECONDS, REQUEST_SECONDS, REPEAT_SECONDS = 30.0, 60.0, 1.5
AUDIT_SECONDS = 2.0
ANSWER_SECONDS = 40.0
"""A runner that has not answered by then never will: the simulated actors take less than a second."""


class Gateway:
    """One gateway process."""

    def __init__(self, world: World, engine: Engine, processes: list[Process]) -> None:
        self.world, self.engine, self._processes = world, engine, processes
        self.requests: list[Request] = []
        self.watches: dict[str, Watch] = {}
        self.waking: set[str] = set()
        self._handlers: dict[str, Callable[[bytes], None]] = {}
        world.later(AUDIT_SECONDS, self._audit)

    def watch(self, actor_id: str) -> Watch:
        """Return the watch of an actor, subscribed."""
        watch = self.watches.get(actor_id)
        if watch is None:
            watch = self.watches[actor_id] = Watch(actor_id)
            self._handlers[actor_id] = lambda payload: (watch.hear(payload), None)[1]
            self.engine.subscribe(channel.actor_channel(actor_id), self._handlers[actor_id])
        return watch

    def process_of(self, runner_id: str) -> Process | None:
        """Return the connected process of a runner."""
        for process in self._processes:
            if process.is_connected and process.runner_id == runner_id:
                return process
        return None

    def wake(self, watch: Watch) -> None:
        """Look and wake until the actor takes traffic or nobody waits: one waker for all requests."""
        if watch.actor_id not in self.waking:
            self.waking.add(watch.actor_id)
            self._wake(watch, again=False)

    def _wake(self, watch: Watch, again: bool) -> None:
        waits = any(request.waits_for(watch) for request in self.requests)
        if not waits or watch.route is not None or watch.destroyed:
            self.waking.discard(watch.actor_id)
            return
        [look] = looks.look_and_wake([looks.Call(watch.actor_id, None if again else "GET /", again)])
        watch.look(look)
        if watch.route is not None or watch.destroyed:
            self.waking.discard(watch.actor_id)
            return
        stops = watch.stops
        self.world.later(REPEAT_SECONDS, self._again, watch, stops)

    def _again(self, watch: Watch, stops: int) -> None:
        self._wake(watch, again=watch.stops == stops)

    def _audit(self) -> None:
        waiting = {watch.actor_id: watch for watch in self.watches.values() if watch.exchanges}
        if waiting:
            for actor_id, look in looks.look_at_many(list(waiting)).items():
                waiting[actor_id].look(look)
        self.world.later(AUDIT_SECONDS, self._audit)


class Request:
    """One client's request for one actor, from the first byte to the last."""

    def __init__(self, gateway: Gateway, actor_id: str, *, sleep: bool) -> None:
        self.gateway, self.world = gateway, gateway.world
        self.actor_id, self.sleep = actor_id, sleep
        self.began = self.world.now
        self.outcome = ""
        self.attempts = 0
        self.served_by: list[int] = []  # generations that handled it
        self.watch = gateway.watch(actor_id)
        self._stops = self.watch.stops
        self._exchange: Exchange | None = None
        gateway.requests.append(self)
        self.watch.listeners.append(self._step)
        self._step()

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return (self.world.now - self.began).total_seconds()

    def waits_for(self, watch: Watch) -> bool:
        """Whether it waits for this actor to take traffic."""
        return not self.outcome and self._exchange is None and self.watch is watch

    def _step(self) -> None:
        if self.outcome or self._exchange is not None:
            return None
        if self.watch.destroyed:
            return self._finish("gone")
        if self.watch.stops - self._stops > 8:
            return self._finish("too many rewakes")
        if self.watch.route is not None:
            return self._send(self.watch.route)
        self.gateway.wake(self.watch)
        self.world.later(READY_SECONDS, self._time_out)
        return None

    def _time_out(self) -> None:
        if not self.outcome and self._exchange is None and self.age >= REQUEST_SECONDS - 0.001:
            self._finish("timeout")
        elif not self.outcome and self._exchange is None:
            self.world.later(REQUEST_SECONDS - self.age, self._time_out)

    def _send(self, route: Route) -> None:
        self.attempts += 1
        exchange = self._exchange = Exchange(route, self.world.seconds, self._failed)
        self.watch.join(exchange)
        self._deliver(exchange)

    def _deliver(self, exchange: Exchange) -> None:
        if self._exchange is not exchange:
            return
        process = self.gateway.process_of(exchange.runner_id)
        if process is None:
            self.world.later(0.1, self._deliver, exchange)
        else:
            self.world.later(0.0005, self._arrive, exchange, process)

    def _arrive(self, exchange: Exchange, process: Process) -> None:
        instance = process.instances.get(self.actor_id)
        if instance is None or not process.alive:
            return  # an npm client says nothing
        self.served_by.append(instance.generation)
        if self.sleep:
            process.intend(instance, EventActorIntent(ActorIntentSleep()))
        self.world.later(self.world.random.uniform(0.0005, 0.2), self._answer, exchange, process, instance)

    def _answer(self, exchange: Exchange, process: Process, instance: Any) -> None:
        if process.instances.get(self.actor_id) is instance and self._exchange is exchange:
            if not process.is_connected:  # the answer is kept until the socket is back
                self.world.later(0.1, self._answer, exchange, process, instance)
            else:
                self._finish("answered")

    def _failed(self, error: GatewayError) -> None:
        if self._exchange is not None:
            self.watch.leave(self._exchange)
            self._exchange = None
        if isinstance(error, ActorStopped):
            self.watch.forget_route()
            self.world.soon(self._step)
        else:
            self._finish("gone" if isinstance(error, ActorNotFound) else str(error))

    def _finish(self, outcome: str) -> None:
        self.outcome = outcome
        self.world.counts[f"request {outcome}"] += 1
        self.watch.listeners.remove(self._step)
        if self._exchange is not None:
            self.watch.leave(self._exchange)
            self._exchange = None
        self.gateway.requests.remove(self)
