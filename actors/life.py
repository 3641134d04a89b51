"""The words of an actor's life: its states, the signals it hears, the effects that follow, and the limits of time.

What becomes of them is decided in `lifecycle.py`. Here is no I/O and no choice.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class CrashPolicy(StrEnum):
    """What becomes of an actor that ended without meaning to."""

    SLEEP = "sleep"  # it sleeps until somebody calls it
    RESTART = "restart"  # it is started again, after a backoff
    DESTROY = "destroy"  # it is gone


class FailureKind(StrEnum):
    """Why an actor is not running although it should be; the API's `error` (API §3.1)."""

    NO_CAPACITY = "no_capacity"  # no runner had a free slot
    RUNNER_NO_RESPONSE = "runner_no_response"  # the runner never said running, or never said stopped
    RUNNER_CONNECTION_LOST = "runner_connection_lost"  # the runner went silent
    RUNNER_DRAINING_TIMEOUT = "runner_draining_timeout"  # it did not stop while its runner drained
    CRASHED = "crashed"  # it stopped with an error
    INTERNAL_ERROR = "internal_error"  # the engine failed on it


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure and what is known of it: the runner for `runner_*`, the message for `crashed`."""

    kind: FailureKind
    runner_id: str | None = None
    message: str | None = None


class Cause(StrEnum):
    """Why an actor waits for a slot; it decides how long it may wait."""

    CREATION = "creation"  # without limit, or not at all: see `NoSlot`
    WAKE = "wake"  # until `Limits.pending`, then it sleeps again
    ALARM = "alarm"  # without limit
    RESTART = "restart"  # until `Limits.pending`, then it sleeps


class StopReason(StrEnum):
    """Why an actor was told to stop."""

    SLEEP = "sleep"  # it, or the API, asked for sleep
    STOP = "stop"  # it asked to end
    DRAIN = "drain"  # its runner goes away
    RESCHEDULE = "reschedule"  # the API asked for a new start elsewhere


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take."""

    start: timedelta  # from StartActor to running
    stop: timedelta  # from StopActor to stopped
    pending: timedelta  # longest wait for a slot after a wake or a restart
    ask_again: timedelta = timedelta(seconds=2)  # a pending actor looks for a slot this often
    audit: timedelta = timedelta(minutes=5)  # a running actor's runner is looked at this often
    evict: timedelta = timedelta(seconds=5)  # from the end of a drain's grace until its runner is surely gone
    away: timedelta = timedelta(seconds=30)  # a runner that comes back was gone no longer than this
    backoff: timedelta = timedelta(seconds=2)
    backoff_exponent: int = 8
    backoff_reset: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Life:
    """What an actor carries through every state."""

    policy: CrashPolicy
    generation: int = -1  # the last one authorised; the first is 0
    failure: Failure | None = None
    retries: int = 0  # attempts that followed a failure, within `Limits.backoff_reset`
    retried_at: datetime | None = None
    started_at: datetime | None = None  # when it first ran
    alarm_at: datetime | None = None  # wakes it when it is asleep then
    alarm_spent_at: datetime | None = None  # the last alarm that was due when, or while, it seemed to run
    alarm_overdue: bool = False  # `alarm_at` was in the past when it was set: it wakes, whatever ran then


@dataclass(frozen=True, slots=True)
class Created:
    """Stored, and nothing has been decided yet."""

    life: Life
    due: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """Waits for a slot."""

    life: Life
    since: datetime  # its place in the queue of its pool
    cause: Cause
    due: datetime  # looks for a slot again
    gives_up_at: datetime | None  # then it sleeps


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failed a moment ago and waits before the next attempt."""

    life: Life
    cause: Cause
    due: datetime


@dataclass(frozen=True, slots=True)
class Starting:
    """Has a slot; its runner was told to start it."""

    life: Life
    runner_id: str
    event_index: int  # the greatest index seen of this generation's events; -1 before the first
    due: datetime


@dataclass(frozen=True, slots=True)
class Running:
    """Runs and takes traffic."""

    life: Life
    runner_id: str
    event_index: int
    connectable_at: datetime
    due: datetime


@dataclass(frozen=True, slots=True)
class Stopping:
    """Was told to stop and has not said stopped yet. Takes no new traffic."""

    life: Life
    runner_id: str
    event_index: int
    connectable_at: datetime | None
    reason: StopReason
    due: datetime
    wake_after: bool  # somebody asked for it meanwhile


@dataclass(frozen=True, slots=True)
class Asleep:
    """Costs nothing until somebody calls it or its alarm is due."""

    life: Life
    since: datetime


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Gone for good."""

    life: Life
    at: datetime


State = Created | Pending | Backoff | Starting | Running | Stopping | Asleep | Destroyed
Hosted = Starting | Running | Stopping


@dataclass(frozen=True, slots=True)
class Start:
    """It was created: begin."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Somebody wants to reach it. `request` and `again` matter to the timeline only."""

    request: str | None = None  # what for, as "GET /path"
    again: bool = False  # a waiting gateway repeats itself


@dataclass(frozen=True, slots=True)
class SlotFree:
    """A slot may be free in its pool: look again."""


@dataclass(frozen=True, slots=True)
class Allocated:
    """It was given a slot of this runner. `called`: the slot's runner had called; for the timeline only."""

    runner_id: str
    called: bool = False


@dataclass(frozen=True, slots=True)
class NoSlot:
    """There is no slot for it now. `on_demand`: its pool starts runners when they are needed."""

    on_demand: bool


@dataclass(frozen=True, slots=True)
class RunningReport:
    """Its runner says: running."""


@dataclass(frozen=True, slots=True)
class SleepIntent:
    """It wants to sleep."""


@dataclass(frozen=True, slots=True)
class StopIntent:
    """It wants to end."""


@dataclass(frozen=True, slots=True)
class StoppedReport:
    """Its runner says: stopped, well or with an error."""

    ok: bool
    message: str | None = None


@dataclass(frozen=True, slots=True)
class AlarmReport:
    """It set its one alarm, or cleared it."""

    at: datetime | None


Report = RunningReport | SleepIntent | StopIntent | StoppedReport | AlarmReport


@dataclass(frozen=True, slots=True)
class FromRunner:
    """A report of a runner. Of another runner or generation, or seen before, it means nothing.

    `heard_at`: when the runner said it, as far as is known; it may have lain about since. None: just now.
    `after`: index of the report before it, if it is known; should that be missing, this one comes again after it.
    """

    runner_id: str
    generation: int
    index: int
    report: Report
    heard_at: datetime | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class RunnerLost:
    """The runner is gone, and the actor with it. `seen_at`: when the runner was last heard of."""

    runner_id: str
    seen_at: datetime
    kind: FailureKind = FailureKind.RUNNER_CONNECTION_LOST


@dataclass(frozen=True, slots=True)
class Missing:
    """Its runner is connected and does not have it (any more)."""

    runner_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class RunnerDraining:
    """Its runner goes away at `until` at the latest."""

    runner_id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Sleep:
    """The API asks it to sleep."""


@dataclass(frozen=True, slots=True)
class Reschedule:
    """The API asks for a fresh start, on another runner if need be; ends a backoff."""


@dataclass(frozen=True, slots=True)
class Destroy:
    """The API ends it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Signal = (
    Start
    | Wake
    | SlotFree
    | Allocated
    | NoSlot
    | FromRunner
    | RunnerLost
    | Missing
    | RunnerDraining
    | Sleep
    | Reschedule
    | Destroy
    | Tick
)


@dataclass(frozen=True, slots=True)
class Allocate:
    """Look for a slot now; `Allocated` or `NoSlot` is the answer, in the same transaction."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Put StartActor for this generation into the runner's command log."""

    runner_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Put StopActor for this generation into the runner's command log."""

    runner_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Deallocate:
    """Give the slot back to the runner."""

    runner_id: str


@dataclass(frozen=True, slots=True)
class Bump:
    """The pool's demand may have changed, or it may have forgotten it."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Look whether this runner is still there, and say `RunnerLost` if not."""

    runner_id: str


@dataclass(frozen=True, slots=True)
class PublishReady:
    """Tell whoever waits that the actor takes traffic."""

    runner_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class PublishStopping:
    """Tell whoever talks to it that this generation takes no new traffic."""

    generation: int


@dataclass(frozen=True, slots=True)
class PublishStopped:
    """Tell whoever waits or talks to it that this generation has ended."""

    generation: int


@dataclass(frozen=True, slots=True)
class PublishDestroyed:
    """Tell whoever waits or talks to it that it is gone."""


Effect = (
    Allocate
    | Dispatch
    | Halt
    | Deallocate
    | Bump
    | Audit
    | PublishReady
    | PublishStopping
    | PublishStopped
    | PublishDestroyed
)
