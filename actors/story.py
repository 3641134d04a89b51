"""What one turn of an actor's life looks like as arrows (DESIGN §1). Does no I/O."""

from dataclasses import replace

from actors import lifecycle as life
from actors.codec import encode_signal
from actors.lifecycle import Effect, FromRunner, Signal, State
from orchestrator.arrows import Arrow, Participant

_USER, _GATEWAY, _ACTOR = Participant.USER, Participant.GATEWAY, Participant.ACTOR
_RUNNER, _RUNNER_WS, _RUNNER_WORKFLOW = (Participant.RUNNER, Participant.RUNNER_WS, Participant.RUNNER_WORKFLOW)
_TO_RUNNER = (_RUNNER_WORKFLOW, _RUNNER_WS)
_FROM_RUNNER = (_RUNNER_WS, _RUNNER_WORKFLOW)


def tell(actor_id: str, signal: Signal, before: State, after: State, effects: list[Effect]) -> list[Arrow]:
    """Return the arrows of one signal: what came in, then what went out. Nothing for a signal that was stale.

    The first arrow of a signal that changed the kind of state carries the signal, for a replay.
    """
    if after == before and not isinstance(signal, life.Wake):
        return []
    arrows = _incoming(signal, before, after) + [
        arrow for effect in effects if (arrow := _outgoing(effect, signal, after)) is not None
    ]
    if type(after) is not type(before):
        if not arrows:
            arrows = [Arrow(_ACTOR, _ACTOR, type(after).__name__.lower())]
        arrows[0] = replace(arrows[0], data=arrows[0].data | {"signal": encode_signal(signal)})
    return [replace(arrow, actor_id=actor_id, generation=after.life.generation) for arrow in arrows]


def _incoming(signal: Signal, before: State, after: State) -> list[Arrow]:
    match signal:
        case life.Wake(request, again):
            return [] if again and type(after) is type(before) else _woken(request, before, after)
        case FromRunner(runner_id, _, _, report):
            ignored = isinstance(before, life.Stopping) and isinstance(after, life.Stopping)
            label = _REPORTS[type(report)] + (" (ignored, it stops already)" if ignored else "")
            return [Arrow(_RUNNER, _ACTOR, label, via=_FROM_RUNNER, runner_id=runner_id)]
        case life.Allocated(runner_id, called):
            if called:
                return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "allocate pending", data={"runner_id": runner_id})]
            return [Arrow(_ACTOR, _ACTOR, "allocate", data={"runner_id": runner_id})]
        case life.NoSlot():
            waits = isinstance(after, life.Pending)
            return [Arrow(_ACTOR, _ACTOR, f"allocate: no runner free, {'pending' if waits else 'asleep'}")]
        case life.RunnerLost(runner_id) | life.Missing(runner_id):
            return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "runner lost", data={"runner_id": runner_id})]
        case life.RunnerDraining(runner_id):
            return [Arrow(_RUNNER_WORKFLOW, _ACTOR, "runner draining", data={"runner_id": runner_id})]
        case life.Start():
            return [Arrow(_USER, _ACTOR, "create")]
        case life.Destroy() | life.Sleep() | life.Reschedule():
            return [Arrow(_USER, _ACTOR, type(signal).__name__.lower())]
        case life.Tick() if type(after) is not type(before):
            return [Arrow(_ACTOR, _ACTOR, _TIMES.get(type(before), "time is up"))]
        case life.SlotFree() | life.Tick():
            return []


def _woken(request: str | None, before: State, after: State) -> list[Arrow]:
    match after:
        case life.Stopping():
            label = "wake (deferred until stopped)"
        case life.Starting() | life.Running() if type(after) is type(before):
            label = "wake (ignored, already allocated)"
        case _:
            label = "wake"
    arrows = [Arrow(_USER, _GATEWAY, request)] if request else []
    return [*arrows, Arrow(_GATEWAY, _ACTOR, label)]


def _outgoing(effect: Effect, signal: Signal, after: State) -> Arrow | None:
    quiet = isinstance(signal, life.Tick) and isinstance(after, life.Pending)
    match effect:
        case life.Dispatch(runner_id):
            return Arrow(_ACTOR, _RUNNER, "StartActor", via=_TO_RUNNER, runner_id=runner_id)
        case life.Halt(runner_id):
            return Arrow(_ACTOR, _RUNNER, "StopActor", via=_TO_RUNNER, runner_id=runner_id)
        case life.Deallocate(runner_id):
            return Arrow(_ACTOR, _ACTOR, "deallocate", data={"runner_id": runner_id})
        case life.Bump() if not quiet:
            return Arrow(_ACTOR, Participant.SERVERLESS, "bump")
        case life.PublishReady(runner_id):
            return Arrow(_ACTOR, _GATEWAY, "ready", data={"runner_id": runner_id})
        case life.PublishStopped():
            return Arrow(_ACTOR, _GATEWAY, "stopped")
        case life.PublishDestroyed():
            return Arrow(_ACTOR, _GATEWAY, "destroyed")
        case life.Allocate() | life.Audit() | life.Bump() | life.PublishStopping():
            return None


_REPORTS: dict[type, str] = {
    life.RunningReport: "running",
    life.SleepIntent: "intent: sleep",
    life.StopIntent: "intent: stop",
    life.StoppedReport: "stopped",
    life.AlarmReport: "alarm set",
}
_TIMES: dict[type, str] = {
    life.Asleep: "alarm due",
    life.Backoff: "backoff over",
    life.Pending: "waited too long",
    life.Starting: "did not start in time",
    life.Stopping: "did not stop in time",
}
