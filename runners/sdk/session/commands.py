"""Which commands of the engine are news: it sends stored ones again at every connect (PROTOCOL §4.4)."""

from collections import OrderedDict
from collections.abc import Iterable

from runners.protocol.messages import ActorCheckpoint, CommandStopActor, CommandWrapper

ENDED_ACTORS = 100_000  # actors no longer here whose last command is still remembered


class CommandLog:
    """Remembers per actor the newest generation and its last index, so that no start acts twice."""

    def __init__(self, ended_actors: int = ENDED_ACTORS) -> None:
        self._ended_limit = ended_actors
        self._living: dict[str, tuple[int, int]] = {}
        self._ended: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def admit(self, command: CommandWrapper) -> bool:
        """Return whether to act on the command, and remember it if so.

        A command of an older generation, or at or below the last index of its generation, is old news. A stop of
        the newest generation is let through whatever its index: engines exist that number it 0 when they declare
        an actor lost (PROTOCOL §4.3), and stopping twice is stopping once.
        """
        place = (command.checkpoint.generation, command.checkpoint.index)
        actor_id = command.checkpoint.actor_id
        last = self._living.get(actor_id) or self._ended.get(actor_id) or (-1, -1)
        if place > last:
            self._ended.pop(actor_id, None)
            self._living[actor_id] = place
            return True
        return isinstance(command.inner, CommandStopActor) and place[0] == last[0]

    def end(self, actor_id: str) -> None:
        """Note that the actor is no longer here; only so many such actors are remembered."""
        if (last := self._living.pop(actor_id, None)) is None:
            return
        self._ended[actor_id] = last
        while len(self._ended) > self._ended_limit:
            self._ended.popitem(last=False)

    def clear(self) -> None:
        """Forget everything: the engine knows this runner under a new id."""
        self._living.clear()
        self._ended.clear()


def acknowledgements(commands: Iterable[CommandWrapper]) -> tuple[ActorCheckpoint, ...]:
    """Return one checkpoint per (actor, generation): the greatest index received, repeated commands included."""
    greatest: dict[tuple[str, int], int] = {}
    for command in commands:
        life = (command.checkpoint.actor_id, command.checkpoint.generation)
        greatest[life] = max(greatest.get(life, -1), command.checkpoint.index)
    return tuple(ActorCheckpoint(*life, index) for life, index in greatest.items())
