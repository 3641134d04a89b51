"""The workflows of actors, runners and pools in the test's own process, their tasks called as functions."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

SOCKET = "socket"


def settle() -> None:
    """Carry out every signal that waits, and what follows from it, until nothing waits any more."""
    from actors import hosting, storage_erasure as erasure, tasks as actors
    from orchestrator.redis import get_redis
    from orchestrator.workflow import mailbox
    from runners import pool_tasks as pools, tasks as runners

    workflows = {"actors": actors, "hosting": hosting, "erasure": erasure, "runners": runners, "pools": pools}
    for _ in range(100):
        streams = [
            (module, shard)
            for name, module in workflows.items()
            for shard in range(settings.ENV.shards)
            if get_redis().xlen(mailbox.stream_name(name, shard))
        ]
        if not streams:
            return
        for module, shard in streams:
            module.advance_shard(shard)
    raise AssertionError("signals lead to signals without end")


def turn(signals: dict[str, list[Any]], now: datetime | None = None) -> None:
    """Have actors hear signals in one turn, at a moment of the test's choosing; effects go to Redis."""
    from actors import tasks
    from actors.codec import encode_signal
    from orchestrator.workflow.outbox import Outbox

    batch = {actor_id: [encode_signal(signal) for signal in heard] for actor_id, heard in signals.items()}
    outbox = Outbox()
    with transaction.atomic():
        tasks.apply(batch, outbox, now or timezone.now())
    outbox.perform()


def post(actor: Any, *signals: Any) -> None:
    """Post signals to an actor's mailbox."""
    from actors.codec import encode_signal
    from orchestrator.workflow import mailbox

    mailbox.post("actors", actor.pk, *(encode_signal(signal) for signal in signals))


def connect(runner: Any) -> None:
    """Tell a runner's workflow that the runner's socket is here."""
    from orchestrator.workflow import mailbox

    mailbox.post("runners", runner.pk, {"t": "connected", "socket_id": runner.socket_id})
