"""The actor's row, and how its columns are the frozen `State` of `lifecycle.py` and back."""

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q

from actors.lifecycle import (
    Asleep,
    Backoff,
    Cause,
    CrashPolicy,
    Created,
    Destroyed,
    Failure,
    FailureKind,
    Life,
    Pending,
    Running,
    Starting,
    State,
    Stopping,
    StopReason,
    due_at,
)
from actors.storage_models import ActorStorage, StoredEntry
from orchestrator.ids import new_id
from orchestrator.models import Namespace

__all__ = ["STATE_COLUMNS", "Actor", "ActorStorage", "StoredEntry", "failure_json"]


class Actor(models.Model):
    """One actor. What is fixed at creation comes first, then the columns of its state."""

    class Status(models.TextChoices):
        """The state's name."""

        CREATED = "created"
        PENDING = "pending"
        BACKOFF = "backoff"
        STARTING = "starting"
        RUNNING = "running"
        STOPPING = "stopping"
        ASLEEP = "asleep"
        DESTROYED = "destroyed"

    id = models.CharField(primary_key=True, max_length=30, default=new_id, editable=False)
    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT, db_index=False)
    name = models.TextField()
    key = models.TextField(null=True, blank=True)  # noqa: DJ001 (no key is not the empty key)
    pool_name = models.TextField()
    crash_policy = models.CharField(max_length=8, choices=[(p.value, p.value) for p in CrashPolicy])
    input = models.BinaryField(null=True, blank=True)
    created_at = models.DateTimeField()

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.CREATED)
    generation = models.BigIntegerField(default=-1)
    runner_id = models.CharField(max_length=30, default="", blank=True)  # whose slot it holds
    event_index = models.BigIntegerField(default=-1)
    stop_reason = models.CharField(max_length=10, default="", blank=True)
    wake_after = models.BooleanField(default=False)
    cause = models.CharField(max_length=10, default="", blank=True)
    failure = models.JSONField(null=True, blank=True)
    retries = models.PositiveIntegerField(default=0)
    retried_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    connectable_at = models.DateTimeField(null=True, blank=True)
    slept_at = models.DateTimeField(null=True, blank=True)
    pending_at = models.DateTimeField(null=True, blank=True)
    gives_up_at = models.DateTimeField(null=True, blank=True)
    alarm_at = models.DateTimeField(null=True, blank=True)
    alarm_spent_at = models.DateTimeField(null=True, blank=True)
    alarm_overdue = models.BooleanField(default=False)
    destroyed_at = models.DateTimeField(null=True, blank=True)
    state_due_at = models.DateTimeField(null=True, blank=True)  # the state's own deadline, alarms aside
    due_at = models.DateTimeField(null=True, blank=True)  # the next Tick
    version = models.PositiveBigIntegerField(default=0)

    class Meta:
        permissions = [
            ("wake_actor", "Can wake actors"),
            ("sleep_actor", "Can put actors to sleep"),
            ("destroy_actor", "Can destroy actors"),
            ("reschedule_actor", "Can give actors a fresh start"),
            ("reset_actor", "Can end the backoff of actors"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "name", "key"],
                condition=Q(destroyed_at=None) & Q(key__isnull=False),
                name="actor_one_live_per_key",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["asleep", "destroyed"]) | Q(due_at__isnull=False),
                name="actor_unsettled_has_deadline",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["starting", "running", "stopping"], runner_id__gt="")
                | Q(~Q(status__in=["starting", "running", "stopping"]), runner_id=""),
                name="actor_holds_a_slot_or_none",
            ),
            models.CheckConstraint(
                condition=Q(status="destroyed", destroyed_at__isnull=False)
                | Q(~Q(status="destroyed"), destroyed_at=None),
                name="actor_destroyed_has_a_time",
            ),
        ]
        indexes = [
            models.Index(fields=["due_at"], name="actor_due", condition=Q(due_at__isnull=False)),
            models.Index(
                fields=["namespace", "name", "-created_at"], name="actor_living", condition=Q(destroyed_at=None)
            ),
            models.Index(
                fields=["namespace", "name", "-created_at"],
                name="actor_destroyed",
                condition=Q(destroyed_at__isnull=False),
            ),
            models.Index(
                fields=["namespace", "name", "key", "-created_at"],
                name="actor_destroyed_by_key",
                condition=Q(destroyed_at__isnull=False, key__isnull=False),
            ),
            models.Index(fields=["runner_id"], name="actor_of_runner", condition=~Q(runner_id="")),
            models.Index(
                fields=["namespace", "pool_name", "pending_at", "id"],
                name="actor_queue",
                condition=Q(status="pending"),
            ),
            models.Index(
                fields=["namespace", "pool_name"],
                name="actor_demand",
                condition=Q(status__in=["pending", "starting", "running", "stopping"]),
            ),
            # For the admin's lists, the newest first; it also stands in for the foreign key's own.
            models.Index(fields=["namespace", "pool_name", "-id"], name="actor_by_pool"),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def state(self) -> State:
        """The row as the lifecycle sees it."""
        life = Life(
            policy=CrashPolicy(self.crash_policy),
            generation=self.generation,
            failure=_failure(self.failure),
            retries=self.retries,
            retried_at=self.retried_at,
            started_at=self.started_at,
            alarm_at=self.alarm_at,
            alarm_spent_at=self.alarm_spent_at,
            alarm_overdue=self.alarm_overdue,
        )
        match self.status:
            case Actor.Status.CREATED:
                return Created(life, _set(self.state_due_at))
            case Actor.Status.PENDING:
                return Pending(
                    life,
                    _set(self.pending_at),
                    Cause(self.cause),
                    _set(self.state_due_at),
                    self.gives_up_at,
                )
            case Actor.Status.BACKOFF:
                return Backoff(life, Cause(self.cause), _set(self.state_due_at))
            case Actor.Status.STARTING:
                return Starting(life, self.runner_id, self.event_index, _set(self.state_due_at))
            case Actor.Status.RUNNING:
                return Running(
                    life,
                    self.runner_id,
                    self.event_index,
                    _set(self.connectable_at),
                    _set(self.state_due_at),
                )
            case Actor.Status.STOPPING:
                return Stopping(
                    life,
                    self.runner_id,
                    self.event_index,
                    self.connectable_at,
                    StopReason(self.stop_reason),
                    _set(self.state_due_at),
                    self.wake_after,
                )
            case Actor.Status.ASLEEP:
                return Asleep(life, _set(self.slept_at))
            case Actor.Status.DESTROYED:
                return Destroyed(life, _set(self.destroyed_at))
        raise AssertionError(f"actor {self.id} has the unknown status {self.status!r}")

    @state.setter
    def state(self, state: State) -> None:
        """Store a state. A destroyed actor keeps the times it had, except that it is no longer connectable."""
        life = state.life
        columns: dict[str, Any] = _CLEARED | {
            "status": type(state).__name__.lower(),
            "generation": life.generation,
            "failure": failure_json(life.failure),
            "retries": life.retries,
            "retried_at": life.retried_at,
            "started_at": life.started_at,
            "alarm_at": life.alarm_at,
            "alarm_spent_at": life.alarm_spent_at,
            "alarm_overdue": life.alarm_overdue,
            "due_at": due_at(state),
        }
        match state:
            case Created(due=due):
                columns |= {"state_due_at": due}
            case Pending(_, since, cause, due, gives_up_at):
                columns |= {"pending_at": since, "cause": cause.value}
                columns |= {"state_due_at": due, "gives_up_at": gives_up_at}
            case Backoff(_, cause, due):
                columns |= {"cause": cause.value, "state_due_at": due}
            case Starting(_, runner_id, index, due):
                columns |= {"runner_id": runner_id, "event_index": index, "state_due_at": due}
            case Running(_, runner_id, index, connectable_at, due):
                columns |= {"runner_id": runner_id, "event_index": index, "state_due_at": due}
                columns |= {"connectable_at": connectable_at}
            case Stopping(_, runner_id, index, connectable_at, reason, due, wake_after):
                columns |= {"runner_id": runner_id, "event_index": index, "state_due_at": due}
                columns |= {"connectable_at": connectable_at, "stop_reason": reason.value}
                columns |= {"wake_after": wake_after}
            case Asleep(_, since):
                columns |= {"slept_at": since}
            case Destroyed(_, at):
                columns |= {"destroyed_at": at, "slept_at": self.slept_at, "pending_at": self.pending_at}
                if self.status in (Actor.Status.BACKOFF, Actor.Status.DESTROYED):
                    columns["state_due_at"] = self.state_due_at  # the end of the backoff, as the API shows it
        for column, value in columns.items():
            setattr(self, column, value)


_CLEARED: dict[str, Any] = {
    "runner_id": "",
    "event_index": -1,
    "stop_reason": "",
    "wake_after": False,
    "cause": "",
    "connectable_at": None,
    "slept_at": None,
    "pending_at": None,
    "gives_up_at": None,
    "destroyed_at": None,
    "state_due_at": None,
}
STATE_COLUMNS = [
    *_CLEARED,
    "status",
    "generation",
    "failure",
    "retries",
    "retried_at",
    "started_at",
    "alarm_at",
    "alarm_spent_at",
    "alarm_overdue",
    "due_at",
]
"""The columns that change when the state does."""


def failure_json(failure: Failure | None) -> dict[str, Any] | None:
    """Return the failure as the row keeps it: kind, runner_id, message; None for none."""
    if failure is None:
        return None
    return {"kind": failure.kind.value, "runner_id": failure.runner_id, "message": failure.message}


def _failure(stored: dict[str, Any] | None) -> Failure | None:
    return Failure(**(stored | {"kind": FailureKind(stored["kind"])})) if stored else None


def _set(moment: datetime | None) -> datetime:
    assert moment is not None, "the state's columns say what its status needs"
    return moment
