"""One client's WebSocket on its way through the tunnel: the shell around `socket_tunnel.py`.

It may outlive the client's connection: a close while the actor sleeps is still to be told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from django.conf import settings

from gateway.attempts import until_answered, watch_actor
from gateway.berth import Berth
from gateway.client import Client
from gateway.errors import (
    ActorDestroyedWhileWaiting,
    ActorNotFound,
    ActorStopped,
    GatewayError,
    RetryAttemptsExceeded,
    SocketNotKept,
    SocketOpenTimeout,
    SocketOverloaded,
    SocketRefused,
    SocketTunnelLost,
    SocketTunnelTimeout,
    SocketUnheard,
    TunnelOverloaded,
)
from gateway.hub import Hub
from gateway.outbox import Outbox
from gateway.routing import told
from gateway.said import Place
from gateway.socket_story import Turn
from gateway.socket_tunnel import (
    Accepted,
    Close,
    Detach,
    Effect,
    Over,
    Phase,
    Refused,
    SocketTunnel,
    ToClient,
    ToRunner,
    Wake,
)
from gateway.stash import Stash
from gateway.waiting import Wait, until_connectable
from gateway.wake_trace import tell_wake
from gateway.watch import Route, Watch
from orchestrator.errors import OrchestratorError
from orchestrator.tracing import NO_TRACE, Trace
from runners.background import spawn
from runners.protocol.messages import (
    ToClientWebSocketOpen,
    ToServerTunnelMessageKind,
)

EARLY_BYTES = 1024 * 1024
"""With more than this from a client whose socket is not open, or sleeps, it is not read from for now."""
SAME_LIFE_SECONDS = 0.1
"""A socket that an actor let go of although it runs is taken up again after this; it may be about to stop."""


class ProxiedSocket:
    """A WebSocket between a client and an actor, from the first attempt to the last word."""

    def __init__(
        self, client: Client, outbox: Outbox, tunnel: SocketTunnel, accept: Callable[[], Awaitable[None]]
    ) -> None:
        """`outbox` is what the client is sent; `accept` completes its handshake, if that is still to do."""
        self._client, self._outbox, self._accept = client, outbox, accept
        self._tunnel = tunnel
        self._trace = NO_TRACE
        self._opened = False  # it was, once
        self._life = ("", -1)  # the runner it is or was with, and the generation
        self._clock = asyncio.get_running_loop().time
        self._hub: Hub
        self._watch: Watch
        self._start: ToClientWebSocketOpen
        self.request_id = b""
        self._kept = False
        self._berth: Berth | None = None
        self._answer: asyncio.Future[bool] | None = None  # of the runner that was asked
        self._failure: GatewayError | None = None  # of the present exchange
        self._changed: asyncio.Event | None = None  # something to look at, while it hibernates
        self._stash = Stash()
        self._released = True

    # The client

    async def open(
        self, start: ToClientWebSocketOpen, skip_ready_wait: bool = False, trace: Trace = NO_TRACE
    ) -> None:
        """Return once an actor has accepted the socket, which is then open.

        `skip_ready_wait`: its runner may be asked although the actor does not take traffic yet. `trace`: that of
        the handshake.

        Raises:
            GatewayError: none has.
            ClientGone: the client did not wait for it.
        """
        self._start, self._trace = start, trace
        self._hub, self._watch = await watch_actor(self._client, start.actor_id)
        self._released = False
        wait = Wait(self._watch, self._request, skip_ready_wait)
        try:
            async with asyncio.timeout(settings.ENV.gateway_request_ms / 1000):
                await until_answered(self._client, wait, self._attempt, lambda: False)
        except TimeoutError:
            raise SocketOpenTimeout from None
        except RetryAttemptsExceeded as error:
            raise error.__cause__ or error from None

    def from_client(self, data: bytes, binary: bool) -> None:
        """Take a message of the client."""
        self._do(self._tunnel.from_client(data, binary, self._clock()))

    @property
    def is_open(self) -> bool:
        """Whether an actor has accepted the socket; it may sleep by now."""
        return self._tunnel.phase not in (Phase.CONNECTING, Phase.ACCEPTED)

    @property
    def is_busy(self) -> bool:
        """Whether the client had better not be read from for now."""
        tunnel = self._tunnel
        if tunnel.phase is Phase.OPEN:
            return self._berth is not None and self._berth.is_busy
        if tunnel.phase is Phase.HIBERNATING:
            return tunnel.unacked_bytes > EARLY_BYTES
        return tunnel.held_bytes > EARLY_BYTES

    def client_left(self, code: int, reason: str | None) -> None:
        """Take note that the client is gone."""
        if self._opened and not self._tunnel.is_leaving and self._tunnel.phase is not Phase.OVER:
            self._tell(Turn.LEFT)
        self._do(self._tunnel.client_left(code, reason, self._clock()))

    def fail(self, error: OrchestratorError) -> None:
        """Close both sides with an error."""
        self._do(self._tunnel.fail(error))

    def let_go(self) -> None:
        """End with the client's connection; only a close that has still to be told goes on."""
        self.client_left(1000, None)
        if not self._tunnel.is_leaving:
            self._release()

    # One attempt

    async def _attempt(self, route: Route) -> None:
        """Ask the runner of the route.

        Raises:
            ActorStopped, SocketRefused, SocketOpenTimeout: it may be tried again.
        """
        await self._accept()
        self.request_id = self._hub.attach_socket(self)
        self._answer = asyncio.get_running_loop().create_future()
        tunnel = self._trace.begin("tunnel")
        try:
            self._attach(route)
            self._check_failure()
            first, self._watch.woken_by_us = self._watch.woken_by_us, False
            if first:
                tell_wake(self._trace, self._start.actor_id, self._hub.recorder)
            self._tell(Turn.OPENS)
            self._do(self._tunnel.connect(self._start))
            await self._ask(route)
            self._check_failure()
        except BaseException:
            self._do(self._tunnel.give_up())
            self._detach()
            self._forget()
            raise
        finally:
            tunnel.end()
            self._answer.cancel()
            self._answer = None
        self._opened = True
        self._tell(Turn.ACCEPTED)
        self._do(self._tunnel.admit(self._clock()))

    async def _ask(self, route: Route) -> None:
        """Wait for the actor's answer, and see to it that its next start lists a socket that may hibernate."""
        assert self._answer is not None
        try:
            limit_ms = settings.ENV.gateway_socket_open_ms
            can_hibernate = await self._client.while_connected(self._answer, limit_ms / 1000)
        except TimeoutError:
            raise SocketOpenTimeout from None
        self._kept = can_hibernate
        if can_hibernate:
            keeping = self._hub.pairs.keep(self._start.actor_id, route.generation, self.request_id)
            if not await self._client.while_connected(keeping):
                raise ActorStopped(actor_id=self._start.actor_id)

    def _check_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The runner

    def _attach(self, route: Route) -> None:
        self._failure = None
        self._life = (route.runner_id, route.generation)
        lane = self._hub.lane(route.runner_id)
        self._berth = Berth(self, lane, self._start.actor_id, route, self._life_over)
        self._berth.take(self._watch)

    def _detach(self) -> None:
        if self._berth is not None:
            self._berth.leave(self._watch)
            self._berth = None

    def _life_over(self, error: GatewayError) -> None:
        """The actor's life has ended: it stopped, or is no more."""
        self._failure = error
        if self._answer is not None:
            if not self._answer.done():
                self._answer.set_exception(error)
        elif isinstance(error, ActorNotFound):
            self._do(self._tunnel.destroyed())
        else:
            self._do(self._tunnel.stopped())

    def take(self, runner_id: str, kind: ToServerTunnelMessageKind, index: int) -> None:
        """Take a message of a runner. While the socket hibernates nobody knows yet which one it will be with."""
        if self._berth is not None:
            if self._berth.runner_id != runner_id:
                return
            place = self._berth.hear(kind, index)
            if place is Place.AGAIN:
                return
            if place is Place.BEYOND:
                self.tunnel_broken()
            self._do(self._tunnel.from_runner(kind))
        elif self._tunnel.phase in (Phase.HIBERNATING, Phase.LEAVING):
            self._stash.put(runner_id, kind)

    def runner_gone(self) -> None:
        """Take note that the runner's connection has ended; it may come back."""
        if self._berth is not None:
            self._berth.said.interrupted()

    def tunnel_lost(self) -> None:
        """Take note that messages to the runner are lost. A runner that was asked is asked anew."""
        self._settle(False, SocketUnheard())
        self._do(self._tunnel.lost())

    def tunnel_broken(self) -> None:
        """Take note that messages of the runner are lost."""
        self._settle(False, SocketUnheard())
        if self.is_open:
            self.fail(SocketTunnelLost())

    def tunnel_silent(self) -> None:
        """Take note that there has been no way to the runner for a while. A socket that may hibernate waits."""
        if self.is_open and not self._kept:
            self.fail(SocketTunnelTimeout())

    def lapsed(self) -> None:
        """Take note that a start may have missed this socket."""
        if self._tunnel.phase is Phase.HIBERNATING:
            self.fail(SocketNotKept())

    def check(self, now: float) -> None:
        """Take note of the time."""
        self._do(self._tunnel.check(now))

    # Hibernation

    async def _resume(self) -> None:
        """Wait until the actor is there again, wake it if there is a reason to, and take the socket up."""
        changed = self._changed = asyncio.Event()
        self._watch.listeners.append(changed.set)
        try:
            while self._tunnel.phase in (Phase.HIBERNATING, Phase.LEAVING):
                route = await self._next_route(changed)
                if route is not None and self._take_up(route):
                    return
        except (ActorNotFound, ActorDestroyedWhileWaiting):
            self._do(self._tunnel.destroyed())
        except GatewayError as error:
            self._do(self._tunnel.fail(error))
        finally:
            self._watch.listeners.remove(changed.set)
            self._changed = None

    async def _next_route(self, changed: asyncio.Event) -> Route | None:
        watch = self._watch
        if watch.destroyed:
            raise watch.gone()
        if watch.route is not None:
            return watch.route
        if not self._tunnel.wants_actor:
            changed.clear()
            await changed.wait()
            return None
        if self._tunnel.phase is Phase.LEAVING:
            await self._hub.pairs.leave(self.request_id)
        return await until_connectable(Wait(watch, self._request))

    def _take_up(self, route: Route) -> bool:
        """Go on with the runner of the route; False if that life is over already."""
        self._attach(route)
        if self._failure is not None:
            self._detach()
            return False
        said = self._stash.take(route.runner_id)
        if said is None:
            self.fail(SocketTunnelLost())
        self._tell(Turn.RESUMES)
        for kind in said or ():
            self._do(self._tunnel.from_runner(kind))
        self._do(self._tunnel.resume(self._clock()))
        return True

    async def _resume_soon(self, generation: int) -> None:
        route = self._watch.route
        if route is not None and route.generation == generation:
            await asyncio.sleep(SAME_LIFE_SECONDS)
        await self._resume()

    # Effects

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if type(effect) is ToRunner:
                if not self._send(effect):
                    return None
            elif type(effect) is ToClient:
                if not self._outbox.put(effect):
                    return self._do(self._tunnel.fail(SocketOverloaded()))
            else:
                self._do_rarely(effect)
        return None

    def _send(self, effect: ToRunner) -> bool:
        """Send a message to the runner. False if that was impossible, and the socket is over."""
        if self._berth is None:
            return True
        try:
            is_over = self._tunnel.phase is Phase.OVER  # its last word: whichever life has it is to let it go
            frame = self._hub.frame(self.request_id, effect.index, effect.kind)
            self._berth.send(frame, to_any_life=is_over)
        except TunnelOverloaded as error:
            if self._tunnel.phase is not Phase.OVER:
                self._do(self._tunnel.fail(error))
                return False
        return True

    def _do_rarely(self, effect: Effect) -> None:
        match effect:
            case Accepted(can_hibernate):
                self._settle(can_hibernate, None)
            case Refused():
                self._settle(False, SocketRefused())
            case Close():
                if self._opened:
                    self._tell(Turn.CLOSED, effect.by)
                self._outbox.close(effect)
            case Detach():
                assert self._berth is not None, "only an open socket hibernates"
                self._tell(Turn.HIBERNATES)
                self._berth.withdraw()
                self._detach()
                spawn(self._resume_soon(self._life[1]))
            case Wake():
                if self._changed is not None:
                    self._changed.set()
            case Over():
                self._release()

    @property
    def _request(self) -> str:
        """What the actor's timeline tells of it."""
        return told("WebSocket", self._start.path)

    def _tell(self, turn: Turn, why: str = "") -> None:
        self._hub.story.tell(turn, self._start.actor_id, *self._life, why)

    def _settle(self, can_hibernate: bool, error: GatewayError | None) -> None:
        if self._answer is None or self._answer.done():
            return
        if error is not None:
            self._answer.set_exception(error)
        else:
            self._answer.set_result(can_hibernate)

    def _release(self) -> None:
        """Let go of everything, once."""
        if self._released:
            return
        self._released = True
        self._detach()
        self._forget()
        if self._changed is not None:
            self._changed.set()
        self._hub.watches.unwatch(self._watch)

    def _forget(self) -> None:
        self._hub.detach_socket(self.request_id)
        if self._kept:
            self._kept = False
            self._hub.pairs.forget(self.request_id)
