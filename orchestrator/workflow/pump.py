"""The pump: one task drains one shard's mailbox, many keys a batch, one transaction a batch (DESIGN §2).

    lock → read up to a batch → apply all of it in one transaction → effects → remove exactly what was read → …

until the mailbox is empty. A worker killed on the way leaves what it has read to the next one. A workflow says
how a batch is applied; everything else is the same for actors, runners and pools.

What one workflow has to tell another, a runner its actors or an actor its pool, the same task goes on with while
no more than one other waits for a worker: a task in between would make it no clearer and each time some
milliseconds later.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from orchestrator import clock
from orchestrator.contention import again
from orchestrator.db import look_at_the_clock
from orchestrator.metrics import SIGNALS
from orchestrator.models import SetAsideSignal
from orchestrator.workflow import mailbox
from orchestrator.workflow.lock import Found, ShardLock
from orchestrator.workflow.mailbox import Place, Signal
from orchestrator.workflow.outbox import Outbox

logger = logging.getLogger(__name__)

Batch = Mapping[str, Sequence[Signal]]

ERRANDS = 8
"""Mailboxes beside its own that one task drains at the most."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """What a house plugs in.

    `apply` is given signals by key, in order, and the time, and runs inside a transaction: it locks the rows,
    folds the signals through its pure `decide`, writes what changed, and puts what is to happen after the
    commit into the outbox. It may run again for the same signals, with nothing of the first run left but the
    outbox's effects if it had committed. `mark_poisoned` is told which key failed every time, with what error.
    What it does not `know`, because a later release sends it, is passed over: that release, when all are of it,
    is asked again by whoever waits.
    """

    name: str
    apply: Callable[[Batch, Outbox, datetime], None]
    mark_poisoned: Callable[[str, str], None]
    knows: Callable[[Signal], bool] = lambda signal: True


class Lease(Protocol):
    """What the pump needs of a shard's lock."""

    def go_on(self, handled: Sequence[bytes]) -> Found | None:
        """Remove what was handled and return the next batch; None if the lease has lapsed."""


_workflows: dict[str, Workflow] = {}


def register(workflow: Workflow) -> Workflow:
    """Return the workflow, known from now on: tasks of others may go on with its mailboxes."""
    _workflows[workflow.name] = workflow
    return workflow


def advance(workflow: Workflow, shard: int) -> int:
    """Drain the mailbox of a shard, and mailboxes that this leaves to us; return how many signals were handled.

    Leaves at once if another worker holds the lock: it looks again before it lets go. A database or Redis
    error ends the run with the unhandled signals still in the mailbox, where the sweep finds them.
    """
    errands: deque[Place] = deque()
    handled = _drain(workflow, shard, errands)
    done = 0
    while errands:
        name, shard = errands.popleft()
        if done < ERRANDS and name in _workflows:
            handled += _drain(_workflows[name], shard, errands)
        else:
            mailbox.send_task(name, shard)
        done += 1
    return handled


def _drain(workflow: Workflow, shard: int, errands: deque[Place]) -> int:
    handled = 0
    look_at_the_clock()
    with ShardLock(workflow.name, shard) as lock:
        found: Found | None = lock.take_up()
        while found:
            handled += len(found)
            found = turn(workflow, lock, found, errands)
    if found is None:
        logger.warning("lease lapsed", extra={"action": "lease_lapsed", "shard": shard})
        mailbox.send_task(workflow.name, shard)
    return handled


def turn(workflow: Workflow, lease: Lease, found: Found, errands: deque[Place]) -> Found | None:
    """Handle one batch, then have it removed, never the other way round; return what the lease says comes next.

    Mailboxes that are left to us are added to the errands.
    """
    entries = [_entry(id_, fields) for id_, fields in found]
    _handle(workflow, entries, errands)
    SIGNALS.labels(workflow.name).inc(len(entries))
    return lease.go_on([entry.id for entry in entries])


@dataclass(frozen=True, slots=True)
class _Entry:
    id: bytes
    key: str
    signal: Signal


def _entry(id_: bytes, fields: Sequence[bytes]) -> _Entry:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return _Entry(id_, values[b"k"].decode(), json.loads(values[b"s"]))


def _handle(workflow: Workflow, entries: Sequence[_Entry], errands: deque[Place]) -> None:
    try:
        _commit(workflow, entries, errands)
    except (OperationalError, InterfaceError):
        # A connection kept between tasks may have gone stale; a second failure is the database's.
        connection.close()
        _commit(workflow, entries, errands)
    except Exception:
        logger.exception("batch failed, handling its keys one by one", extra={"action": "batch_failed"})
        _handle_one_by_one(workflow, entries, errands)


def _handle_one_by_one(workflow: Workflow, entries: Sequence[_Entry], errands: deque[Place]) -> None:
    for key in dict.fromkeys(entry.key for entry in entries):
        own = [entry for entry in entries if entry.key == key]
        try:
            _commit(workflow, own, errands)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # poison: it is set aside so that the rest of the shard goes on
            logger.exception("signals set aside", extra={"action": "set_aside", "key": key})
            _set_aside(workflow, key, own, f"{type(error).__name__}: {error}")


def _set_aside(workflow: Workflow, key: str, entries: Sequence[_Entry], error: str) -> None:
    SetAsideSignal.objects.bulk_create(
        SetAsideSignal(workflow=workflow.name, key=key, signal=entry.signal, error=error) for entry in entries
    )
    try:
        workflow.mark_poisoned(key, error)
    except DatabaseError:
        logger.exception("row not marked", extra={"action": "mark_failed", "key": key})


@again
def _commit(workflow: Workflow, entries: Sequence[_Entry], errands: deque[Place]) -> None:
    batch: dict[str, list[Signal]] = {}
    for entry in entries:
        if workflow.knows(entry.signal):
            batch.setdefault(entry.key, []).append(entry.signal)
        else:
            logger.warning("signal of an unknown kind", extra={"action": "unknown_signal", "key": entry.key})
    outbox = Outbox()
    with transaction.atomic():
        workflow.apply(batch, outbox, clock.now())
    if (left_to_us := outbox.perform()) is not None:
        errands.append(left_to_us)
