"""What the clients of a run do: a mixed load on actors of several pools, every operation written down."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from tests.faults.desk import Desk
from tests.faults.history import History, Sleeper
from tests.faults.impostor import impersonate
from tests.faults.sockets import converse
from tests.faults.zombie import haunt

ALARM_MS = (600, 3_000)
POLL_SECONDS = 0.1
AWAKE_SECONDS = 60.0  # so long after its alarm a sleeper is waited for
STRANGERS = "strangers"
"""Another namespace, from which nothing of this one may be seen."""


class Load:
    """Clients that go on until told to stop. `start` makes the actors, all of which must succeed."""

    def __init__(
        self, urls: list[str], database_url: str, pools: Sequence[str], history: History, calm: float = 1.0
    ) -> None:
        self._urls = urls
        self._database_url = database_url
        self._pools = pools
        self._history = history
        self._calm = calm  # how many times the usual pauses
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._keys = itertools.count()
        self.callable: list[str] = []
        self.counters: list[str] = []
        self.alarmed: list[str] = []

    async def start(self, desk: Desk) -> None:
        """Make the actors and begin."""
        self._desk = desk
        policies = itertools.cycle(["sleep", "restart"])
        for pool in self._pools:
            self.callable += [await self._made(pool, next(policies)) for _ in range(3)]
            self.counters += [await self._made(pool, next(policies)) for _ in range(2)]
            self.alarmed.append(await self._made(pool, "sleep"))
        plain = [await self._made(pool, "sleep") for pool in self._pools if pool != "cloud"]
        hibernating = [await self._made("npm", "sleep") for _ in range(2)]
        self.callable += hibernating
        loops: list[Callable[[], Awaitable[None]]] = [self._call] * 3 + [self._create, self._race, self._look]
        loops += [lambda actor_id=actor_id: self._count(actor_id) for actor_id in self.counters]
        loops += [lambda actor_id=actor_id: self._alarm(actor_id) for actor_id in self.alarmed]
        loops += [lambda actor_id=actor_id: self._nap(actor_id) for actor_id in hibernating]
        self._tasks = [asyncio.create_task(self._repeat(loop)) for loop in loops]
        self._tasks.append(asyncio.create_task(impersonate(self._urls, self.counters, self._over)))
        haunting = haunt(self._urls, self._database_url, self._history, self._over)
        self._tasks.append(asyncio.create_task(haunting))
        for actor_id in plain + hibernating:
            talk = converse(self._urls, self._history, actor_id, self._over, may_hibernate=actor_id in hibernating)
            self._tasks.append(asyncio.create_task(talk))

    async def stop(self) -> None:
        """Have the clients finish what they have begun, and wait for that."""
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def last_calls(self) -> None:
        """Call every actor once more: whatever has happened, it answers."""
        await asyncio.gather(*(self._desk.call(actor_id, kind="last call") for actor_id in self.callable))
        await asyncio.gather(*(self._desk.call(one, "/count", "count") for one in self.counters))

    async def _repeat(self, loop: Callable[[], Awaitable[None]]) -> None:
        while not self._over.is_set():
            await loop()
            await asyncio.sleep(self._calm * random.uniform(0.02, 0.12))

    async def _made(self, pool: str, policy: str) -> str:
        made = await self._desk.get_or_create(pool, None, policy)
        assert made.outcome == "ok", made
        return made.actor_id

    async def _call(self) -> None:
        actor_id = random.choice(self.callable)
        await self._desk.call(actor_id)
        if random.random() < 0.1:
            await self._desk.call(actor_id, "/sleep", "sleep")

    async def _count(self, actor_id: str) -> None:
        await self._desk.call(actor_id, "/count", "count")
        if random.random() < 0.05:
            await self._desk.call(actor_id, "/sleep", "sleep")

    async def _nap(self, actor_id: str) -> None:
        await asyncio.sleep(self._calm * random.uniform(1.5, 4))
        await self._desk.call(actor_id, "/sleep", "sleep")

    async def _create(self) -> None:
        """Lead a short life: made, called, destroyed, called in vain."""
        made = await self._desk.get_or_create(random.choice(self._pools), f"short-{next(self._keys)}")
        if made.outcome != "ok":
            return
        await self._desk.call(made.actor_id)
        gone = await self._desk.destroy(made.actor_id)
        await self._desk.call(made.actor_id, kind="call in vain" if gone.outcome == "ok" else "call")
        await asyncio.sleep(0.3 * self._calm)

    async def _race(self) -> None:
        """Ask for one key's actor from several sides at once."""
        key, pool = f"race-{next(self._keys)}", random.choice(self._pools)
        made = await asyncio.gather(*(self._desk.get_or_create(pool, key) for _ in range(3)))
        for actor_id in {one.actor_id for one in made if one.outcome == "ok"}:
            await self._desk.destroy(actor_id)
        await asyncio.sleep(0.5 * self._calm)

    async def _look(self) -> None:
        actor_id = random.choice(self.callable + self.counters)
        await self._desk.read(actor_id)
        await self._desk.read(actor_id, STRANGERS)
        await asyncio.sleep(0.3 * self._calm)

    async def _alarm(self, actor_id: str) -> None:
        """Have an actor set its alarm and sleep, and look until it is awake again."""
        alarm_ms = random.randint(*ALARM_MS)
        alarm = await self._desk.call(actor_id, f"/alarm?ms={alarm_ms}", "alarm")
        sleep = await self._desk.call(actor_id, "/sleep", "sleep")
        if alarm.outcome != "ok" or sleep.outcome != "ok" or alarm.generation != sleep.generation:
            return
        assert alarm.value is not None
        assert alarm.generation is not None
        asleep = await self._seen(actor_id, awake=False, until=time.time() + AWAKE_SECONDS)
        if asleep is None or asleep * 1000 >= alarm.value:
            return  # too late to tell whether it slept when the alarm came due
        sleeper = Sleeper(actor_id, alarm.value, alarm.generation, alarm.began, asleep)
        self._history.sleepers.append(sleeper)
        sleeper.rung = await self._seen(actor_id, awake=True, until=alarm.value / 1000 + AWAKE_SECONDS)

    async def _seen(self, actor_id: str, *, awake: bool, until: float) -> float | None:
        """Look until the actor is awake, or asleep; return when it was seen so, None if it was not in time."""
        while time.time() < until:
            _, actor = await self._desk.read(actor_id)
            is_awake = actor is not None and actor["connectable_ts"] is not None
            is_asleep = actor is not None and not is_awake and actor["sleep_ts"] is not None
            if is_awake if awake else is_asleep:
                return time.time()
            await asyncio.sleep(POLL_SECONDS)
        return None
