"""What an actor knows about itself and may ask of the engine."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from runners.sdk.kv import Kv


class Wishes(Protocol):
    """What an actor may wish for; carried out by the life it belongs to."""

    def sleep(self) -> None:
        """Ask for sleep."""

    def destroy(self) -> None:
        """Ask for the end."""

    def set_alarm(self, alarm_ts_ms: int | None) -> None:
        """Replace or clear the alarm, in ms since the epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """One life of an actor: from a start to the stop that follows it.

    `key` is the serialised key (PROTOCOL §8.3) or None, `generation` grows from life to life, `input` is what the
    actor was created with, the same at every start.
    """

    actor_id: str
    name: str
    key: str | None
    generation: int
    input: bytes | None
    kv: Kv
    wishes: Wishes

    def sleep(self) -> None:
        """Ask the engine to put this actor to sleep. It serves on until the engine stops it, a moment later."""
        self.wishes.sleep()

    def destroy(self) -> None:
        """Ask the engine to end this actor for good. It serves on until the engine stops it, a moment later."""
        self.wishes.destroy()

    def set_alarm(self, when: datetime | None) -> None:
        """Have the engine wake this actor if it sleeps at that moment; None clears. There is one alarm per actor.

        Nothing happens at that moment while the actor is awake. Raises ValueError for a time without its zone.
        """
        if when is None:
            self.wishes.set_alarm(None)
            return
        if when.tzinfo is None:
            raise ValueError("an alarm needs a time with its zone")
        self.wishes.set_alarm(math.ceil(when.timestamp() * 1000))  # up: an alarm is never early
