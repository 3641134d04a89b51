"""The wake inside a request's trace: its phases, as the actor's timeline has them.

The processes that take part need not know of the trace: what they record for the timeline says when each phase
began and ended, whichever process it was in.
"""

from actors.budget import Phase, Wake, budgets
from actors.timeline import actor_timeline
from gateway.recorder import Recorder
from orchestrator.db import run_db
from orchestrator.tracing import Trace
from runners.background import spawn

ARROWS = 60
"""The actor's newest arrows that are searched for its wake."""


def tell_wake(trace: Trace, actor_id: str, recorder: Recorder) -> None:
    """Have the wake that the request has waited for recorded under its span, once its own arrows are stored."""
    if trace:
        spawn(_read_and_tell(trace, actor_id, recorder))


async def _read_and_tell(trace: Trace, actor_id: str, recorder: Recorder) -> None:
    await recorder.stored()
    wakes = await run_db(lambda: budgets(actor_timeline(actor_id, last=ARROWS)))
    if wakes:
        tell_phases(trace, wakes[-1])


def tell_phases(trace: Trace, wake: Wake) -> None:
    """Record a wake and its phases up to running; what comes after is the tunnel's."""
    phases = [(phase, length) for phase, length in wake.phases if phase is not Phase.FIRST_BYTE]
    if not phases:
        return
    ends, at = [], wake.began_at
    for _, length in phases:
        at += length
        ends.append(at)
    whole = trace.tell("wake", wake.began_at, ends[-1])
    for (phase, length), ended in zip(phases, ends, strict=True):
        whole.tell(phase.value, ended - length, ended)
