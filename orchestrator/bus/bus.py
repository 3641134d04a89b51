"""The link of one process to all others: publish and subscribe, order kept, nothing stored.

A message reaches whoever is subscribed at that moment, also in the process that sent it, by way of Redis.
It is a hint (DESIGN §2, rule 4): when the link is lost, what was published meanwhile is lost, and `on_reset`
tells the listeners to ask again.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import hiredis

from orchestrator.bus.link import CONNECT_SECONDS, Endpoint, Link, connect
from orchestrator.errors import BusOverloaded, BusUnavailable

logger = logging.getLogger(__name__)

Handler = Callable[[bytes], None]
_BUFFER_SETTING = b"client-output-buffer-limit"

PENDING_LIMIT_BYTES = 64 * 1024 * 1024
REDIS_BUFFER_BYTES = 256 * 1024 * 1024
"""What Redis should be allowed to hold for one subscriber; its own default, 32 MiB, is two big messages."""
BACKOFF_SECONDS = (0.05, 2.0)
"""The first pause between two attempts to connect, and the longest; each is twice the one before."""


@dataclass(slots=True, eq=False)
class _Subscription:
    """The handlers of one channel. `confirmed` is done once the present link's SUBSCRIBE was answered."""

    channel: bytes
    confirmed: asyncio.Future[None]
    handlers: tuple[Handler, ...] = ()


class Bus:
    """Messages between processes over one connection to Redis. Belongs to one event loop and one thread."""

    def __init__(self, redis_url: str, *, pending_limit_bytes: int = PENDING_LIMIT_BYTES) -> None:
        self.connected = False
        self._endpoint = Endpoint.parse(redis_url)
        self._limit = pending_limit_bytes
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._first_time = asyncio.Event()  # set when the first link is up, and when there will be none
        self._early: list[tuple[bytes, bytes]] = []  # published before the first link was there
        self._early_bytes = 0
        self._subscriptions: dict[bytes, _Subscription] = {}
        self._left: dict[bytes, Handler] = {}  # channels that Redis does not know yet to be left
        self._on_reset: list[Callable[[], None]] = []
        self._unsent_bytes = 0  # an upper bound of pending_bytes, cheap enough to keep per message

    @property
    def pending_bytes(self) -> int:
        """The bytes published but not yet taken by the kernel."""
        return self._early_bytes + (self._link.pending_bytes if self._link else 0)

    async def start(self) -> None:
        """Connect, trying again until it succeeds or `stop` is called."""
        self.launch()
        await self._first_time.wait()

    def launch(self) -> None:
        """Begin to connect in the background; twice is as good as once."""
        if self._task is None and not self._stopped:
            self._task = asyncio.get_running_loop().create_task(self._keep_connected(), name="bus")

    async def stop(self) -> None:
        """Send what was published so far and hang up for good; waiting subscribers get `BusUnavailable`."""
        self._stopped = True
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._first_time.set()
        for subscription in self._subscriptions.values():
            _refuse(subscription, "the bus is stopped")
        self._subscriptions.clear()

    def publish(self, channel: str, payload: bytes) -> None:
        """Send a message and forget it; while the link is lost it goes nowhere.

        What is published before the first connection waits for it.

        Raises:
            BusOverloaded: too much waits to be sent already.
        """
        self._make_room(len(payload))
        if self._link:
            self._link.publish(channel.encode(), payload)
        elif not self._first_time.is_set():
            self._early.append((channel.encode(), payload))
            self._early_bytes += len(payload)

    async def publish_counted(self, channel: str, payload: bytes) -> int:
        """Send a message and return to how many subscribers Redis gave it.

        Raises:
            BusUnavailable: the link is down, or was lost before the answer came (the message may be through).
            BusOverloaded: too much waits to be sent already.
        """
        if not self._first_time.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first_time.wait(), CONNECT_SECONDS)
        if self._link is None:
            raise BusUnavailable
        self._make_room(len(payload))
        try:
            count: int = await self._link.command(b"PUBLISH", channel.encode(), payload)
        except (ConnectionError, hiredis.ReplyError) as error:
            raise BusUnavailable(str(error)) from error
        return count

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Have `handler` called with each message of the channel, in the order of their publishing.

        Returns once Redis has confirmed, however long the link is away. A handler runs in the event loop and
        must not block; one given twice is called twice. Cancelling the wait takes the handler off again.

        Raises:
            BusUnavailable: the bus is stopped, or Redis forbids the channel.
        """
        if self._stopped:
            raise BusUnavailable("the bus is stopped")
        key = channel.encode()
        subscription = self._subscriptions.get(key)
        if subscription is None:
            confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            subscription = self._subscriptions[key] = _Subscription(key, confirmed)
            self._ask(subscription)
        subscription.handlers += (handler,)
        try:
            await asyncio.shield(subscription.confirmed)
        except BaseException:
            self._take_off(subscription, handler)
            raise

    def unsubscribe(self, channel: str, handler: Handler, late: Handler | None = None) -> None:
        """Take a handler off once; one that is not there is no error.

        `late` is called with what is still on its way to the channel when the last handler leaves it: whoever
        has published that may count on its having been taken.
        """
        subscription = self._subscriptions.get(channel.encode())
        if subscription:
            self._take_off(subscription, handler, late)

    def on_reset(self, callback: Callable[[], None]) -> None:
        """Have `callback` called each time a lost link and all its subscriptions are back."""
        self._on_reset.append(callback)

    # Ours.

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        shortest, longest = BACKOFF_SECONDS
        pause, complained = shortest, False
        link: Link | None = None
        try:
            while True:
                try:
                    link = await connect(self._endpoint, self._deliver)
                except (OSError, hiredis.ReplyError) as error:
                    if not complained:
                        logger.warning("no link to redis: %s", error or type(error).__name__)
                    complained = True
                else:
                    since = loop.time()
                    if await self._take_up(link):
                        await link.lost.wait()
                        logger.warning("the link to redis is lost")
                    self._let_go()
                    if loop.time() - since > longest:
                        pause, complained = shortest, False
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, longest)
        finally:
            self._let_go()
            if link:
                await _hang_up(link)

    async def _take_up(self, link: Link) -> bool:
        """Use a new link: subscribe to everything, then tell the listeners. False if it is lost meanwhile."""
        first = not self._first_time.is_set()
        self._link, self._unsent_bytes = link, 0
        # One connection keeps order, so whatever is published from here on follows the SUBSCRIBEs.
        replies = [reply for one in self._subscriptions.values() if (reply := self._ask(one))]
        for channel, payload in self._early:
            link.publish(channel, payload)
        self._early, self._early_bytes = [], 0
        self._first_time.set()
        await asyncio.gather(*replies, return_exceptions=True)
        if link.lost.is_set():
            return False
        self.connected = True
        if first:
            link.command(b"CONFIG", b"GET", _BUFFER_SETTING).add_done_callback(_check_buffers)
        else:
            logger.info("the link to redis is back")
            for callback in list(self._on_reset):
                try:
                    callback()
                except Exception:
                    logger.exception("a listener failed to ask again after the link was lost")
        return True

    def _let_go(self) -> None:
        self._link, self.connected = None, False
        for subscription in self._subscriptions.values():
            if subscription.confirmed.done():
                subscription.confirmed = asyncio.get_running_loop().create_future()

    def _ask(self, subscription: _Subscription) -> "asyncio.Future[object] | None":
        if self._link is None:
            return None
        reply = self._link.command(b"SUBSCRIBE", subscription.channel)
        reply.add_done_callback(lambda reply: _answer(subscription, reply))
        return reply

    def _take_off(self, subscription: _Subscription, handler: Handler, late: Handler | None = None) -> None:
        if handler not in subscription.handlers:
            return
        handlers = list(subscription.handlers)
        handlers.remove(handler)
        subscription.handlers = tuple(handlers)
        if not handlers and self._subscriptions.get(subscription.channel) is subscription:
            del self._subscriptions[subscription.channel]
            if self._link:
                reply = self._link.command(b"UNSUBSCRIBE", subscription.channel)
                if late is not None:
                    self._left[subscription.channel] = late
                reply.add_done_callback(partial(self._forget_left, subscription.channel, late))

    def _forget_left(self, channel: bytes, late: Handler | None, reply: "asyncio.Future[object]") -> None:
        reply.cancelled() or reply.exception()  # nobody has to look at it
        if self._left.get(channel) is late:
            self._left.pop(channel, None)

    def _deliver(self, channel: bytes, payload: bytes) -> None:
        subscription, late = self._subscriptions.get(channel), self._left.get(channel)
        for handler in subscription.handlers if subscription else (late,) if late else ():
            try:
                handler(payload)
            except Exception:
                logger.exception("a handler of channel %s failed", channel.decode(errors="replace"))

    def _make_room(self, size: int) -> None:
        self._unsent_bytes += size
        if self._unsent_bytes > self._limit:
            self._unsent_bytes = self.pending_bytes + size
            if self._unsent_bytes > self._limit:
                self._unsent_bytes -= size
                raise BusOverloaded(pending_bytes=self._unsent_bytes)


async def _hang_up(link: Link) -> None:
    """Close the link once Redis has answered everything; what it hasn't read by then would be lost."""
    with contextlib.suppress(OSError, hiredis.ReplyError):
        await asyncio.wait_for(link.command(b"PING"), 1)
    link.abort()
    await link.lost.wait()


def _answer(subscription: _Subscription, reply: "asyncio.Future[object]") -> None:
    """Pass Redis's answer to a SUBSCRIBE on. A lost link is no answer: the next one asks again."""
    if reply.cancelled() or isinstance(reply.exception(), ConnectionError):
        return
    if error := reply.exception():
        logger.error(
            "redis refused a subscription to %s: %s", subscription.channel.decode(errors="replace"), error
        )
        _refuse(subscription, str(error))
    elif not subscription.confirmed.done():
        subscription.confirmed.set_result(None)


def _refuse(subscription: _Subscription, why: str) -> None:
    if not subscription.confirmed.done():
        subscription.confirmed.set_exception(BusUnavailable(why))
        subscription.confirmed.exception()  # nobody has to look at it


def _check_buffers(reply: "asyncio.Future[object]") -> None:
    """Warn when Redis would cut off a subscriber that has a few big messages coming, if it lets us see."""
    if reply.cancelled() or reply.exception() or not isinstance(settings := reply.result(), dict):
        return
    words = settings.get(_BUFFER_SETTING, b"").split()
    limits = {name: int(limit) for name, limit in zip(words[::4], words[1::4], strict=True)}
    if 0 < limits.get(b"pubsub", 0) < REDIS_BUFFER_BYTES:
        logger.warning(
            "redis cuts a subscriber off at %d MiB of waiting messages; "
            "set client-output-buffer-limit to 'pubsub 256mb 0 0' or more",
            limits[b"pubsub"] // 1024**2,
        )
