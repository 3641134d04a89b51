"""A runner's events on their way to their actors' mailboxes, in order although Redis may be away for a moment.

An actor takes an event of a lower number than its last one for a repetition: overtaken by the next, it would be
lost. So what could not be posted goes once more before whatever follows it.
"""

from concurrent.futures import Future
from typing import Any

from orchestrator.workflow.mailbox import postman

Signal = dict[str, Any]

MOST_KEPT = 64
"""Of an actor that says more than this while nothing is posted, the order is not seen to: it floods the engine."""


class EventPost:
    """The events of one connection."""

    def __init__(self) -> None:
        self._posted: dict[str, list[tuple[Signal, Future[None]]]] = {}  # by actor, as far as it may have failed

    def post(self, actor_id: str, signal: Signal) -> None:
        """Post an event, and before it those of its actor that could not be. Returns at once."""
        kept = [(told, future) for told, future in self._posted.get(actor_id, []) if not _is_delivered(future)]
        if len(kept) > MOST_KEPT:
            kept = []
        elif any(future.done() for _, future in kept):
            kept = [(told, postman.post("actors", actor_id, told)) for told, _ in kept]
        self._posted[actor_id] = [*kept, (signal, postman.post("actors", actor_id, signal))]

    def forget(self, actor_id: str) -> None:
        """Let go of an actor whose life is over."""
        self._posted.pop(actor_id, None)


def _is_delivered(future: Future[None]) -> bool:
    return future.done() and future.exception() is None
