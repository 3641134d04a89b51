"""What the runner's socket does to rows: register, heartbeat, disconnect, acknowledge; and goodbyes by hand."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from orchestrator import clock
from orchestrator.arrows import Arrow, Participant
from orchestrator.contention import again
from orchestrator.errors import NamespaceNotFound
from orchestrator.models import Namespace
from orchestrator.strict_json import parse_object
from orchestrator.timeline import record
from orchestrator.workflow import mailbox
from runners.models import ActorName, Command, Runner, RunnerConfig
from runners.pools import drain_grace
from runners.protocol.messages import ToServerInit

RUNNERS = "runners"


@dataclass(frozen=True, slots=True)
class Registration:
    """A runner as its socket needs to know it."""

    runner_id: str
    reused: bool  # it was known, and may have actors
    unaccounted: bool  # nobody has said what its last socket had still under way: that process may be dead
    seen_at: datetime  # when it was last heard of before, if it was
    drain_grace: timedelta
    serverless: bool
    actor_stop: timedelta


@dataclass(frozen=True, slots=True)
class Standing:
    """How a runner stands, at a ping."""

    newest_seq: int  # of its command log
    drains: bool  # or is further on its way out


def register_runner(
    *,
    namespace_name: str,
    key: str,
    init: ToServerInit,
    protocol_version: int,
    socket_id: str,
    now: datetime | None = None,
) -> Registration:
    """Find or create the runner of this key and make `socket_id` its socket.

    A live runner that was heard of within the lost threshold keeps its id; one that drains or went silent
    gives its key to a new one (PROTOCOL §4.1). Its pool's configuration is created if there is none.

    Raises:
        NamespaceNotFound: there is no such namespace.
    """
    now = now or clock.now()
    namespace = Namespace.objects.filter(name=namespace_name).first()
    if namespace is None:
        raise NamespaceNotFound
    for attempt in range(3):
        try:
            config, runner, reused = _register(namespace, key, init, protocol_version, socket_id, now)
            break
        except IntegrityError:  # another socket of the same key, or a first of the same pool, was quicker
            if attempt == 2:
                raise
    if not reused:
        _end_former(runner)
    return Registration(
        runner_id=runner.pk,
        reused=reused,
        unaccounted=reused and runner.socket_id != "",
        seen_at=runner.last_ping_at,
        drain_grace=drain_grace(config),
        serverless=config.kind == RunnerConfig.Kind.SERVERLESS,
        actor_stop=timedelta(milliseconds=settings.ENV.actor_stop_ms),
    )


@again
def _register(
    namespace: Namespace, key: str, init: ToServerInit, protocol_version: int, socket_id: str, now: datetime
) -> tuple[RunnerConfig, Runner, bool]:
    """Return the pool's configuration, the runner, and whether it was known."""
    with transaction.atomic():
        config = _config(namespace, init.name)
        runner, reused = _find_or_create(namespace, key, init, protocol_version, socket_id, now)
        _learn_names(namespace, init)
        record([Arrow(Participant.RUNNER, Participant.RUNNER_WS, "connect, init", runner_id=runner.pk)], now)
    return config, runner, reused


def _config(namespace: Namespace, name: str) -> RunnerConfig:
    config, _ = RunnerConfig.objects.get_or_create(
        namespace=namespace,
        name=name,
        deleted_at=None,
        defaults={"kind": RunnerConfig.Kind.NORMAL, "drain_on_version_upgrade": False},
    )
    return config


def _find_or_create(
    namespace: Namespace, key: str, init: ToServerInit, protocol_version: int, socket_id: str, now: datetime
) -> tuple[Runner, bool]:
    lost = timedelta(milliseconds=settings.ENV.runner_lost_ms)
    holder = (
        Runner.objects.select_for_update(no_key=True)
        .filter(namespace=namespace, name=init.name, key=key, holds_key=True)
        .first()
    )
    seen = {"socket_id": socket_id, "connected_at": now, "last_ping_at": now, "protocol_version": protocol_version}
    if holder is not None and holder.state == Runner.State.LIVE and now - holder.last_ping_at < lost:
        if init.metadata is not None:
            seen["metadata"] = _json_object(init.metadata)
        Runner.objects.filter(pk=holder.pk).update(**seen)
        return holder, True
    if holder is not None:
        Runner.objects.filter(pk=holder.pk).update(holds_key=False)
    runner = Runner.objects.create(
        namespace=namespace,
        name=init.name,
        key=key,
        runner_version=init.version,
        total_slots=init.total_slots,
        metadata=_json_object(init.metadata) if init.metadata is not None else None,
        due_at=now + lost,
        **seen,
    )
    return runner, False


def _end_former(runner: Runner) -> None:
    """Have the runners end that had this key before: their process is this one now, or is gone.

    One that drained is evicted at once, with its socket; one that went silent is found lost.
    """
    former = Runner.objects.filter(namespace_id=runner.namespace_id, name=runner.name, key=runner.key)
    for other in former.exclude(pk=runner.pk).exclude(state=Runner.State.STOPPED):
        mailbox.post(RUNNERS, other.pk, {"t": "tick" if other.state == Runner.State.LIVE else "evict"})


def _learn_names(namespace: Namespace, init: ToServerInit) -> None:
    names = [
        ActorName(namespace=namespace, name=name, metadata=_json_object(metadata))
        for name, metadata in sorted((init.prepopulate_actor_names or {}).items())  # one order: no deadlock
    ]
    ActorName.objects.bulk_create(
        names, update_conflicts=True, unique_fields=["namespace", "name"], update_fields=["metadata"]
    )


def _json_object(text: str) -> dict[str, Any]:
    """Return the object; an empty one for anything else (PROTOCOL §4.1)."""
    try:
        return parse_object(text.encode())
    except ValueError:
        return {}


def heartbeat(
    *, runner_id: str, socket_id: str, silent_ms: int, rtt_ms: int, now: datetime | None = None
) -> Standing | None:
    """Note when the runner was last heard of, and return how it stands.

    None if the socket is not the runner's any more: another one has taken its place, or the runner has ended.
    """
    seen_at = (now or clock.now()) - timedelta(milliseconds=silent_ms)
    mine = Runner.objects.filter(pk=runner_id, socket_id=socket_id).exclude(state=Runner.State.STOPPED)
    if not mine.update(last_ping_at=seen_at, last_rtt_ms=rtt_ms):
        return None
    row = mine.values_list("command_seq", "state").first()
    return None if row is None else Standing(row[0], drains=row[1] != Runner.State.LIVE)


def holds_socket(*, runner_id: str, socket_id: str) -> bool:
    """Say whether the socket is the runner's, and not one that a newer has replaced."""
    return Runner.objects.filter(pk=runner_id, socket_id=socket_id).exists()


def disconnect(*, runner_id: str, socket_id: str) -> None:
    """Note that the socket is closed, and tell the runner's workflow."""
    if Runner.objects.filter(pk=runner_id, socket_id=socket_id).update(socket_id=""):
        mailbox.post_on_commit(RUNNERS, runner_id, {"t": "disconnected", "socket_id": socket_id})


def command_log(*, runner_id: str, after_seq: int) -> tuple[int, list[Command]]:
    """Return the newest seq of the runner's command log, and what the log still has after `after_seq`, in order.

    What has taken effect is no longer in the log, so the newest seq may be greater than the last entry's.
    """
    newest = Runner.objects.filter(pk=runner_id).values_list("command_seq", flat=True).first() or 0
    log = list(Command.objects.filter(runner_id=runner_id, seq__gt=after_seq).order_by("seq"))
    return max([newest, *(command.seq for command in log)]), log


def acknowledge_commands(*, runner_id: str, checkpoints: Iterable[tuple[str, int | None, int]]) -> None:
    """Forget starts (actor id, generation, index) the runner says it has (PROTOCOL §4.4).

    No generation means the current one, which is the only one whose start can still be in the log.
    """
    acknowledged = {(actor_id, generation): index for actor_id, generation, index in checkpoints}
    kept = Command.objects.filter(runner_id=runner_id, kind=Command.Kind.START)
    had = []
    for pk, actor_id, generation, index in kept.values_list("pk", "actor_id", "generation", "index"):
        marks = [acknowledged.get((actor_id, of)) for of in (generation, None)]
        if any(mark is not None and index <= mark for mark in marks):
            had.append(pk)
    if had:
        Command.objects.filter(pk__in=had).delete()
