"""What an actor's timeline leads to when its signals are heard again (I16)."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from actors import codec
from actors.lifecycle import CrashPolicy, Created, Life, Limits, State, Tick, decide
from actors.story import state_name


class Departure(Exception):
    """The replay led to another state than the one that was written down."""


def replay(
    policy: str, created_at: datetime, entries: Iterable[tuple[datetime, dict[str, Any]]], limits: Limits
) -> State:
    """Return the state that an actor's entries, moment and data, lead to; deadlines are taken to have been met.

    Raises:
        Departure: an entry says that its signal led elsewhere.
    """
    state: State = Created(Life(CrashPolicy(policy)), due=created_at)
    for at, data in entries:
        if "signal" in data:
            signal = codec.decode_signal(data["signal"])
            heard_at = at + timedelta(seconds=1) if isinstance(signal, Tick) else at
            state, _ = decide(state, signal, heard_at, limits)
            if state_name(state) != data["state"]:
                raise Departure(f"{state} in a replay, and was {data['state']}")
    return state


def essence(state: State) -> tuple[object, ...]:
    """Return what of a state a replay must lead to: all but its deadlines."""
    return (state_name(state), state.life.generation, state.life.failure, state.life.alarm_at)
