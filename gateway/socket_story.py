"""What actors' timelines tell of clients' WebSockets: how they open, hibernate, resume and close.

An actor may have a thousand of them which do the same at once: those of one moment are one arrow.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from orchestrator import clock
from orchestrator.arrows import Arrow, Participant

GATHER_SECONDS = 0.3
"""Arrows of one actor that say the same are gathered for this long."""

_TO_RUNNER = (Participant.GATEWAY, (Participant.RUNNER_WS,), Participant.RUNNER)
_FROM_RUNNER = (Participant.RUNNER, (Participant.RUNNER_WS,), Participant.GATEWAY)
_TO_USER = (Participant.RUNNER, (Participant.RUNNER_WS, Participant.GATEWAY), Participant.USER)
_FROM_USER = (Participant.USER, (Participant.GATEWAY, Participant.RUNNER_WS), Participant.RUNNER)


class Turn(Enum):
    """What happens to a WebSocket: the way of its arrow, and what that says."""

    OPENS = (_TO_RUNNER, "websocket open")
    ACCEPTED = (_TO_USER, "websocket accepted")
    HIBERNATES = (_FROM_RUNNER, "websocket hibernates")
    RESUMES = (_TO_RUNNER, "websocket resumes")
    LEFT = (_FROM_USER, "websocket closed by its client")
    CLOSED = (_TO_USER, "websocket closed")


@dataclass(slots=True)
class _Gathered:
    at: datetime
    arrow: Arrow
    sockets: int = 0


class SocketStory:
    """Tells of the WebSockets of one gateway. `note` stores arrows with the time they had."""

    def __init__(self, note: Callable[[Arrow, datetime], None]) -> None:
        self._note = note
        self._gathered: dict[tuple[str, str, int, str], _Gathered] = {}

    def tell(self, turn: Turn, actor_id: str, runner_id: str, generation: int, why: str = "") -> None:
        """Tell of one WebSocket, soon."""
        (source, via, target), label = turn.value
        key = (actor_id, runner_id, generation, f"{label}: {why}" if why else label)
        if (gathered := self._gathered.get(key)) is None:
            facts = {"runner_id": runner_id}
            arrow = Arrow(source, target, key[-1], via=via, actor_id=actor_id, generation=generation, data=facts)
            gathered = _Gathered(clock.now(), arrow)
            if not self._gathered:
                asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
            self._gathered[key] = gathered
        gathered.sockets += 1

    def _flush(self) -> None:
        over, self._gathered = self._gathered, {}
        for one in over.values():
            arrow = one.arrow
            if one.sockets > 1:
                data = {**arrow.data, "sockets": one.sockets}
                arrow = replace(arrow, label=f"{arrow.label}, {one.sockets:,} at once", data=data)
            self._note(arrow, one.at)
