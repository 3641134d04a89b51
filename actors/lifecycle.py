"""One actor's life: what follows from what happens to it. Does no I/O.

`decide` is the only place where an actor changes. The workflow (`tasks.py`) feeds it signals in order,
stores the state it returns and performs the effects. The words are those of `life.py`, and can be had from here;
the rules are those of PROTOCOL §4.3 to §4.10 as settled by DESIGN §11.

    Created ─ Pending ─ Starting ─ Running ─ Stopping ─┬─ Asleep ─ Pending …
                 └─ Backoff ◄──── after a failure ─────┤
                                                       └─ Destroyed
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from actors.life import (
    AlarmReport,
    Allocate,
    Allocated,
    Asleep,
    Audit,
    Backoff,
    Bump,
    Cause,
    CrashPolicy,
    Created,
    Deallocate,
    Destroy,
    Destroyed,
    Dispatch,
    Effect,
    Failure,
    FailureKind,
    FromRunner,
    Halt,
    Hosted,
    Life,
    Limits,
    Missing,
    NoSlot,
    Pending,
    PublishDestroyed,
    PublishReady,
    PublishStopped,
    PublishStopping,
    Report,
    Reschedule,
    RunnerDraining,
    RunnerLost,
    Running,
    RunningReport,
    Signal,
    Sleep,
    SleepIntent,
    SlotFree,
    Start,
    Starting,
    State,
    StopIntent,
    StoppedReport,
    Stopping,
    StopReason,
    Tick,
    Wake,
)

# fmt: off
__all__ = [
    "AlarmReport", "Allocate", "Allocated", "Asleep", "Audit", "Backoff", "Bump", "Cause", "CrashPolicy",
    "Created", "Deallocate", "Destroy", "Destroyed", "Dispatch", "Effect", "Failure", "FailureKind",
    "FromRunner", "Halt", "Hosted", "Life", "Limits", "Missing", "NoSlot", "Pending", "PublishDestroyed",
    "PublishReady", "PublishStopped", "PublishStopping", "Report", "Reschedule", "RunnerDraining",
    "RunnerLost", "Running", "RunningReport", "Signal", "Sleep", "SleepIntent", "SlotFree", "Start",
    "Starting", "State", "Step", "StopIntent", "StopReason", "StoppedReport", "Stopping", "Tick", "Wake",
    "decide", "due_at",
]
# fmt: on

Step = tuple[State, list[Effect]]


def due_at(state: State) -> datetime | None:
    """Return when the state wants its next `Tick`; None only where nothing is waited for."""
    match state:
        case Running(life=life, due=due) if life.alarm_at is not None and not life.alarm_overdue:
            return min(due, life.alarm_at)
        case Asleep(life):
            return life.alarm_at
        case Destroyed():
            return None
        case _:
            return state.due


def decide(state: State, signal: Signal, now: datetime, limits: Limits) -> Step:
    """Return the next state and the effects to perform, in order.

    Every pair has an answer. A signal that is stale or means nothing here gives back the same state
    (or one that remembers no more than the signal's index) and no effects.
    """
    match state:
        case Created() | Pending() | Backoff():
            return _before_a_slot(state, signal, now, limits)
        case Starting() | Running() | Stopping():
            return _with_a_slot(state, signal, now, limits)
        case Asleep():
            return _asleep(state, signal, now, limits)
        case Destroyed():
            return state, []


def _before_a_slot(state: Created | Pending | Backoff, signal: Signal, now: datetime, limits: Limits) -> Step:
    match signal:
        case Destroy():
            return Destroyed(state.life, now), [Bump(), PublishDestroyed()]
        case Allocated(runner_id) if isinstance(state, Pending):
            life = replace(state.life, generation=state.life.generation + 1, failure=None)
            starting = Starting(life, runner_id, -1, now + limits.start)
            return starting, [Dispatch(runner_id, life.generation)]
        case NoSlot(on_demand) if isinstance(state, Pending):
            return _without_a_slot(state, on_demand, now)
        case Start() | Wake() | SlotFree() | Reschedule() | Tick():
            match state:
                case Created(life):
                    return _queue(life, Cause.CREATION, now, limits)
                case Pending():
                    return _look_again(state, signal, now, limits)
                case Backoff(life, cause, due):
                    if isinstance(signal, Reschedule):  # asked for by hand: what failed before counts no more
                        return _queue(replace(life, retries=0, retried_at=None), cause, now, limits)
                    if now >= due:
                        return _queue(life, cause, now, limits)
                    return state, []
        case Allocated() | NoSlot() | FromRunner() | RunnerLost() | Missing() | RunnerDraining() | Sleep():
            return state, []


def _queue(life: Life, cause: Cause, now: datetime, limits: Limits) -> Step:
    """Join the queue of the pool and look for a slot."""
    if _has_no_capacity(life):  # of an earlier wait; this one's first refusal says so anew
        life = replace(life, failure=None)
    gives_up_at = now + limits.pending if cause in (Cause.WAKE, Cause.RESTART) else None
    return Pending(life, now, cause, now + limits.ask_again, gives_up_at), [Allocate()]


def _look_again(state: Pending, signal: Signal, now: datetime, limits: Limits) -> Step:
    gives_up_at = state.gives_up_at
    if isinstance(signal, Wake | Reschedule) and gives_up_at is not None:
        gives_up_at = now + limits.pending
    if isinstance(signal, Tick) and gives_up_at is not None and now >= gives_up_at:
        next_state, effects = _rest(state.life, now, limits)
        return next_state, [Bump(), *effects]
    asking = replace(state, due=now + limits.ask_again, gives_up_at=gives_up_at)
    if asking == state and not isinstance(signal, SlotFree):  # it has asked in this very turn
        return state, []
    return asking, [Allocate()]


def _without_a_slot(state: Pending, on_demand: bool, now: datetime) -> Step:
    """Stay in the queue, unless a runner comes only by chance and nobody has called it yet (API §3.2)."""
    first = not _has_no_capacity(state.life)
    life = replace(state.life, failure=Failure(FailureKind.NO_CAPACITY))
    if first and state.cause is Cause.CREATION and life.policy is CrashPolicy.SLEEP and not on_demand:
        return Asleep(life, now), []
    return replace(state, life=life), [Bump()]


def _has_no_capacity(life: Life) -> bool:
    return life.failure is not None and life.failure.kind is FailureKind.NO_CAPACITY


def _asleep(state: Asleep, signal: Signal, now: datetime, limits: Limits) -> Step:
    match signal:
        case Destroy():
            return Destroyed(state.life, now), [PublishDestroyed()]
        case Reschedule():
            return _queue(state.life, Cause.WAKE, now, limits)
        case Wake():
            return _attempt(state.life, Cause.WAKE, now, limits)
        case Tick() if _alarm_is_due(state.life, now):
            return _rest(state.life, now, limits)
        case (
            Start()
            | SlotFree()
            | Allocated()
            | NoSlot()
            | FromRunner()
            | RunnerLost()
            | Missing()
            | RunnerDraining()
            | Sleep()
            | Tick()
        ):
            return state, []


def _rest(life: Life, now: datetime, limits: Limits) -> Step:
    """Sleep, unless the alarm is due. It is kept until the life that it begins runs."""
    if not _alarm_is_due(life, now):
        return Asleep(life, now), []
    return _attempt(replace(life, alarm_overdue=False), Cause.ALARM, now, limits)


def _alarm_is_due(life: Life, now: datetime) -> bool:
    return life.alarm_at is not None and now >= life.alarm_at


def _attempt(life: Life, cause: Cause, now: datetime, limits: Limits) -> Step:
    """Queue at once after a graceful end; after a failure the first attempt is free, later ones wait."""
    if life.failure is None or _has_no_capacity(life):
        return _queue(life, cause, now, limits)
    if life.retried_at is None or now - life.retried_at >= limits.backoff_reset:
        return _queue(replace(life, retries=1, retried_at=now), cause, now, limits)
    exponent = min(life.retries - 1, limits.backoff_exponent)
    jitter = timedelta(milliseconds=now.microsecond % 500)
    until = now + limits.backoff * 2**exponent + jitter
    return Backoff(replace(life, retries=life.retries + 1, retried_at=until), cause, until), []


def _with_a_slot(state: Hosted, signal: Signal, now: datetime, limits: Limits) -> Step:
    generation = state.life.generation
    match signal:
        case FromRunner(runner_id, of, index, report, heard_at, after):
            if runner_id != state.runner_id or of != generation or index <= state.event_index:
                return state, []
            if after is not None and after > state.event_index:  # was lost on the way: both are said again
                return state, []
            ran_until = min(heard_at or now, now)
            return _reported(replace(state, event_index=index), report, ran_until, now, limits)
        case Wake():
            if isinstance(state, Running):
                return state, [PublishReady(state.runner_id, generation)]
            if isinstance(state, Stopping):
                return replace(state, wake_after=True), []
            return state, []
        case Destroy():
            return _destroyed(state.life, now, [*_halt(state), Deallocate(state.runner_id), Bump()])
        case Sleep():
            return _stop(state, StopReason.SLEEP, now, now + limits.stop)
        case Reschedule():
            step = _stop(state, StopReason.RESCHEDULE, now, now + limits.stop)
            return (replace(step[0], wake_after=True), step[1]) if isinstance(step[0], Stopping) else step
        case RunnerDraining(runner_id, until) if runner_id == state.runner_id:
            return _drain(state, now, until + limits.evict)
        case RunnerLost(runner_id, seen_at, kind) if runner_id == state.runner_id:
            return _lost(state, kind, now, limits, seen_at=seen_at)
        case Missing(runner_id, of) if runner_id == state.runner_id and of == generation:
            seen_at, kind = now - limits.away, FailureKind.RUNNER_CONNECTION_LOST
            return _halted(state, _lost(state, kind, now, limits, seen_at=seen_at))
        case Tick():
            return _time_passed(state, now, limits)
        case Start() | SlotFree() | Allocated() | NoSlot() | RunnerDraining() | RunnerLost() | Missing():
            return state, []


def _reported(state: Hosted, report: Report, ran_until: datetime, now: datetime, limits: Limits) -> Step:
    match report:
        case RunningReport():
            if not isinstance(state, Starting):
                return state, []
            life = replace(state.life, started_at=state.life.started_at or now)
            running = Running(life, state.runner_id, state.event_index, now, now + limits.audit)
            running = replace(running, life=_settle_alarm(running, now))
            return running, [PublishReady(state.runner_id, life.generation)]
        case SleepIntent():
            return _stop(state, StopReason.SLEEP, ran_until, now + limits.stop)
        case StopIntent():
            return _stop(state, StopReason.STOP, ran_until, now + limits.stop)
        case StoppedReport(ok, message):
            if isinstance(state, Running):
                state = replace(state, life=_settle_alarm(state, ran_until))
            return _stopped(state, ok, message, now, limits)
        case AlarmReport(at):
            overdue = at is not None and at <= now
            return replace(state, life=replace(state.life, alarm_at=at, alarm_overdue=overdue)), []
        case _:
            assert_never(report)


def _stop(state: Hosted, reason: StopReason, ran_until: datetime, due: datetime) -> Step:
    """Tell it to stop; a second reason changes nothing. Its alarm counts from `ran_until` on."""
    if isinstance(state, Stopping):
        return state, []
    life, connectable_at = state.life, None
    if isinstance(state, Running):
        life, connectable_at = _settle_alarm(state, ran_until), state.connectable_at
    stopping = Stopping(life, state.runner_id, state.event_index, connectable_at, reason, due, wake_after=False)
    return stopping, [PublishStopping(state.life.generation), *_halt(state)]


def _drain(state: Hosted, now: datetime, due: datetime) -> Step:
    """Tell it to stop before its runner ends; a stop that is under way may take no longer than that.

    At `due` the runner is surely gone: that it is gets known by its own end, after the closing handshake.
    """
    if isinstance(state, Stopping):
        return replace(state, due=min(state.due, due)), []
    graceful = replace(state.life, retries=0, retried_at=None)  # PROTOCOL §7.5
    return _stop(replace(state, life=graceful), StopReason.DRAIN, now, due)


def _settle_alarm(state: Hosted, ran_until: datetime) -> Life:
    """Return the life with its alarm spent if it came due while the actor ran, which was until `ran_until`.

    One that was spent later, when the actor only seemed to run, is given back: it is long due, and counts.
    """
    life = state.life
    if isinstance(state, Running) and _alarm_is_due(life, ran_until) and not life.alarm_overdue:
        return replace(life, alarm_at=None, alarm_spent_at=life.alarm_at)
    if life.alarm_at is None and life.alarm_spent_at is not None and life.alarm_spent_at > ran_until:
        return replace(life, alarm_at=life.alarm_spent_at, alarm_spent_at=None, alarm_overdue=True)
    return life


def _halt(state: Hosted) -> list[Effect]:
    """Tell the runner to stop it, unless it was told before."""
    return [] if isinstance(state, Stopping) else [Halt(state.runner_id, state.life.generation)]


def _halted(state: Hosted, step: Step) -> Step:
    """Have the runner stop what it should not have any more, should it live."""
    return step[0], [*_halt(state), *step[1]]


def _time_passed(state: Hosted, now: datetime, limits: Limits) -> Step:
    match state:
        case Running(life=life, due=due):
            if _alarm_is_due(life, now):  # it keeps its own timers
                state = replace(state, life=_settle_alarm(state, now))
            if now < due:
                return state, []
            return replace(state, due=now + limits.audit), [Audit(state.runner_id)]
        case Starting() if now >= state.due:
            lost = _lost(state, FailureKind.RUNNER_NO_RESPONSE, now, limits, seen_at=now)
            return _halted(state, lost)
        case Stopping(reason=reason) if now >= state.due:
            drained = reason is StopReason.DRAIN
            kind = FailureKind.RUNNER_DRAINING_TIMEOUT if drained else FailureKind.RUNNER_NO_RESPONSE
            return _lost(state, kind, now, limits, seen_at=now)
        case Starting() | Stopping():
            return state, []


def _stopped(state: Hosted, ok: bool, message: str | None, now: datetime, limits: Limits) -> Step:
    """Judge a stop by what was asked for, then by its code (PROTOCOL §4.6)."""
    reason = state.reason if isinstance(state, Stopping) else None
    if reason in (StopReason.SLEEP, StopReason.DRAIN, StopReason.RESCHEDULE):
        life = replace(state.life, failure=None, retries=0, retried_at=None)
        return _ended(state, life, now, limits, asleep=reason is not StopReason.DRAIN)
    if ok:
        return _destroyed(state.life, now, [Deallocate(state.runner_id), Bump()])
    life = replace(state.life, failure=Failure(FailureKind.CRASHED, message=message))
    return _ended(state, life, now, limits, asleep=False)


def _lost(state: Hosted, kind: FailureKind, now: datetime, limits: Limits, *, seen_at: datetime) -> Step:
    """End a generation that will not say stopped. Its runner was last heard of at `seen_at`."""
    life = _settle_alarm(state, seen_at)
    asleep = isinstance(state, Stopping) and state.reason is StopReason.SLEEP
    if not asleep:
        life = replace(life, failure=Failure(kind, runner_id=state.runner_id))
    return _ended(state, life, now, limits, asleep=asleep)


def _ended(state: Hosted, life: Life, now: datetime, limits: Limits, *, asleep: bool) -> Step:
    """Go where the crash policy says, or to sleep if that was the wish; and wake again if asked to."""
    over: list[Effect] = [Deallocate(state.runner_id), Bump()]
    life = replace(life, alarm_spent_at=None)
    if not asleep and life.policy is CrashPolicy.DESTROY:
        return _destroyed(life, now, over)
    if not asleep and life.policy is CrashPolicy.RESTART:
        next_state, effects = _attempt(life, Cause.RESTART, now, limits)
    elif isinstance(state, Stopping) and state.wake_after and not _alarm_is_due(life, now):
        next_state, effects = _attempt(life, Cause.WAKE, now, limits)
    else:
        next_state, effects = _rest(life, now, limits)
    return next_state, [*over, PublishStopped(state.life.generation), *effects]


def _destroyed(life: Life, now: datetime, over: list[Effect]) -> Step:
    return Destroyed(life, now), [*over, PublishDestroyed()]
