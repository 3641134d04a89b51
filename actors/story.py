"""What one turn of an actor's life looks like as arrows (DESIGN §1). Does no I/O."""

from dataclasses import replace

from actors import life
from actors.codec import encode_signal
from actors.life import Effect, FromRunner, Report, Signal, State
from orchestrator.arrows import Arrow, Participant

_USER, _GATEWAY, _ACTOR = Participant.USER, Participant.GATEWAY, Participant.ACTOR
_RUNNER, _RUNNER_WS, _RUNNER_WORKFLOW = (Participant.RUNNER, Participant.RUNNER_WS, Participant.RUNNER_WORKFLOW)
_TO_RUNNER = (_RUNNER_WORKFLOW, _RUNNER_WS)
_FROM_RUNNER = (_RUNNER_WS, _RUNNER_WORKFLOW)


def tell(actor_id: str, signal: Signal, before: State, after: State, effects: list[Effect]) -> list[Arrow]:
    """Return the arrows of one signal: what came in, then what went out. Nothing for a signal that was stale.

    The first arrow of a signal that changed the actor carries the signal, for a replay, and the state it led to.
    What changes no more than when a waiting actor looks again, or is looked at, has no arrow.
    """
    if after == before and not isinstance(signal, life.Wake):
        return []
    arrows = _incoming(signal, before, after) + [
        arrow for effect in effects if (arrow := _outgoing(effect)) is not None
    ]
    if type(after) is not type(before) and not arrows:
        arrows = [Arrow(_ACTOR, _ACTOR, state_name(after))]
    if after != before and arrows:
        kept = {"signal": encode_signal(signal), "state": state_name(after)}
        arrows[0] = replace(arrows[0], data=arrows[0].data | kept)
    generation = after.life.generation if after.life.generation >= 0 else None
    return [replace(arrow, actor_id=actor_id, generation=generation) for arrow in arrows]


def state_name(state: State) -> str:
    """Return the state's name, as the actor's row has it."""
    return type(state).__name__.lower()


def _incoming(signal: Signal, before: State, after: State) -> list[Arrow]:
    match signal:
        case life.Wake(request, again):
            repeated = again and (after == before or isinstance(before, life.Pending))
            return [] if repeated else _woken(request, before, after)
        case FromRunner(runner_id, _, _, report):
            label = _REPORTS[type(report)] + _ignored(report, before, after)
            return [Arrow(_RUNNER, _ACTOR, label, via=_FROM_RUNNER, runner_id=runner_id)]
        case life.Allocated(runner_id, called):
            if called:
                return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "allocate pending", data={"runner_id": runner_id})]
            return [Arrow(_ACTOR, _ACTOR, "allocate", data={"runner_id": runner_id})]
        case life.NoSlot():
            waits = isinstance(after, life.Pending)
            return [Arrow(_ACTOR, _ACTOR, f"allocate: no runner free, {'pending' if waits else 'asleep'}")]
        case life.RunnerLost(runner_id):
            return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "runner lost", data={"runner_id": runner_id})]
        case life.Missing(runner_id):
            return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "runner has lost it", data={"runner_id": runner_id})]
        case life.RunnerDraining(runner_id):
            return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "runner draining", data={"runner_id": runner_id})]
        case life.Start():
            return [Arrow(_USER, _ACTOR, "create")]
        case life.Destroy() | life.Sleep() | life.Reschedule():
            return [Arrow(_USER, _ACTOR, type(signal).__name__.lower())]
        case life.Tick():
            return _time_passed(before, after)
        case life.SlotFree():
            return []


def _woken(request: str | None, before: State, after: State) -> list[Arrow]:
    match after:
        case life.Stopping():
            label = "wake (deferred until stopped)"
        case life.Starting() | life.Running():
            label = "wake (ignored, already allocated)"
        case life.Pending() | life.Backoff() if type(after) is type(before):
            label = "wake (waits already)"
        case life.Destroyed():
            label = "wake (ignored, destroyed)"
        case _:
            label = "wake"
    arrows = [Arrow(_USER, _GATEWAY, request)] if request else []
    return [*arrows, Arrow(_GATEWAY, _ACTOR, label)]


def _ignored(report: Report, before: State, after: State) -> str:
    """Say so if nothing is remembered of a report but that it came."""
    if not isinstance(before, life.Hosted) or not isinstance(after, life.Hosted):
        return ""
    if replace(before, event_index=after.event_index) != after or isinstance(report, life.AlarmReport):
        return ""
    return " (ignored, it stops already)" if isinstance(after, life.Stopping) else " (ignored)"


def _time_passed(before: State, after: State) -> list[Arrow]:
    if isinstance(before, life.Running) and before.life.alarm_at != after.life.alarm_at:
        return [Arrow(_ACTOR, _ACTOR, "alarm due, it runs")]
    gave_up = (
        isinstance(before, life.Pending) and isinstance(after, life.Pending) and before.cause is not after.cause
    )
    if type(after) is not type(before) or gave_up:
        return [Arrow(_ACTOR, _ACTOR, _TIMES[type(before)])]
    return []


def _outgoing(effect: Effect) -> Arrow | None:
    match effect:
        case life.Dispatch(runner_id):
            return Arrow(_ACTOR, _RUNNER, "StartActor", via=_TO_RUNNER, runner_id=runner_id)
        case life.Halt(runner_id):
            return Arrow(_ACTOR, _RUNNER, "StopActor", via=_TO_RUNNER, runner_id=runner_id)
        case life.Deallocate(runner_id):
            return Arrow(_ACTOR, _ACTOR, "deallocate", data={"runner_id": runner_id})
        case life.Bump():
            return Arrow(_ACTOR, Participant.SERVERLESS, "bump")
        case life.PublishReady(runner_id):
            return Arrow(_ACTOR, _GATEWAY, "ready", data={"runner_id": runner_id})
        case life.PublishStopped():
            return Arrow(_ACTOR, _GATEWAY, "stopped")
        case life.PublishDestroyed():
            return Arrow(_ACTOR, _GATEWAY, "destroyed")
        case life.Allocate() | life.Audit() | life.PublishStopping():
            return None


_REPORTS: dict[type[Report], str] = {
    life.RunningReport: "running",
    life.SleepIntent: "intent: sleep",
    life.StopIntent: "intent: stop",
    life.StoppedReport: "stopped",
    life.AlarmReport: "alarm set",
}
_TIMES: dict[type[State], str] = {
    life.Created: "create (its first signal was lost)",
    life.Asleep: "alarm due",
    life.Backoff: "backoff over",
    life.Pending: "waited too long",
    life.Starting: "did not start in time",
    life.Stopping: "did not stop in time",
}
