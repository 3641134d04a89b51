"""What a runner has told the engine about its actors and must be able to say again (PROTOCOL §4.5)."""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from runners.protocol.messages import ActorCheckpoint, Event, EventWrapper

ENDED_EVENTS = 10_000  # some engines never acknowledge a short life: beyond this the oldest lives are dropped


@dataclass(slots=True)
class _Life:
    """The unacknowledged events of one generation of one actor, each with its place among all events."""

    next_index: int = 0
    ended: bool = False
    events: deque[tuple[int, EventWrapper]] = field(default_factory=deque)


class EventHistory:
    """Numbers events per (actor, generation) from 0 and keeps each until the engine has acknowledged it."""

    def __init__(self, ended_events: int = ENDED_EVENTS) -> None:
        self._ended_limit = ended_events
        self._ended_events = 0
        self._ended: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._lives: dict[str, dict[int, _Life]] = {}
        self._recorded = 0

    def begin(self, actor_id: str, generation: int) -> None:
        """Forget every earlier generation of the actor: the engine has left them behind."""
        for earlier in [known for known in self._lives.get(actor_id, {}) if known < generation]:
            self._forget(actor_id, earlier)

    def record(self, actor_id: str, generation: int, event: Event) -> EventWrapper:
        """Return the event with its number, and remember it."""
        life = self._lives.setdefault(actor_id, {}).setdefault(generation, _Life())
        wrapper = EventWrapper(ActorCheckpoint(actor_id, generation, life.next_index), event)
        life.next_index += 1
        self._recorded += 1
        life.events.append((self._recorded, wrapper))
        return wrapper

    def end(self, actor_id: str, generation: int) -> None:
        """Note that this generation has said its last; what is unacknowledged stays, within a common limit."""
        life = self._lives.get(actor_id, {}).get(generation)
        if life is None or life.ended:
            return
        life.ended = True
        self._ended[actor_id, generation] = None
        self._ended_events += len(life.events)
        if not life.events:
            self._forget(actor_id, generation)
        while self._ended_events > self._ended_limit:
            self._forget(*next(iter(self._ended)))

    def acknowledge(self, checkpoints: Iterable[ActorCheckpoint]) -> None:
        """Forget the events of each named generation up to and including the named index."""
        for checkpoint in checkpoints:
            life = self._lives.get(checkpoint.actor_id, {}).get(checkpoint.generation)
            if life is None:
                continue
            while life.events and life.events[0][1].checkpoint.index <= checkpoint.index:
                life.events.popleft()
                if life.ended:
                    self._ended_events -= 1
            if life.ended and not life.events:
                self._forget(checkpoint.actor_id, checkpoint.generation)

    def unacknowledged(self) -> tuple[EventWrapper, ...]:
        """Return every event to send again, in the order in which they were first sent."""
        numbered = [event for lives in self._lives.values() for life in lives.values() for event in life.events]
        return tuple(wrapper for _, wrapper in sorted(numbered, key=lambda event: event[0]))

    def clear(self) -> None:
        """Forget everything: the engine knows this runner under a new id."""
        self._lives.clear()
        self._ended.clear()
        self._ended_events = 0

    def _forget(self, actor_id: str, generation: int) -> None:
        lives = self._lives[actor_id]
        life = lives.pop(generation)
        if not lives:
            del self._lives[actor_id]
        if life.ended:
            del self._ended[actor_id, generation]
            self._ended_events -= len(life.events)
