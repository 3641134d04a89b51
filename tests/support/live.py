"""Actors and rows of a live engine, for tests in an event loop."""

from typing import Any

from orchestrator.db import run_db
from tests.support.management import make_actor
from tests.support.web import eventually


async def wake(actor_id: str) -> None:
    """Ask the actor to run."""
    from actors.services import wake_actor

    await run_db(wake_actor, actor_id=actor_id)


async def running_actor(namespace: Any, **columns: Any) -> str:
    """Make an actor, have it started on a runner that is connected, and return its id."""
    actor = await run_db(make_actor, namespace, **columns)
    await wake(actor.pk)
    await has_status(actor.pk, "running")
    return str(actor.pk)


async def actor_row(actor_id: str) -> Any:
    """Return the actor's row."""
    from actors.models import Actor

    return await run_db(Actor.objects.get, pk=actor_id)


async def runner_row(runner_id: str) -> Any:
    """Return the runner's row."""
    from runners.models import Runner

    return await run_db(Runner.objects.get, pk=runner_id)


async def has_status(actor_id: str, status: str, **columns: Any) -> Any:
    """Wait until the actor's row says so and return it."""
    from actors.models import Actor

    wanted = Actor.objects.filter(pk=actor_id, status=status, **columns)
    return await eventually(lambda: run_db(wanted.first))


async def has_state(runner_id: str, state: str) -> Any:
    """Wait until the runner's row says so and return it."""
    from runners.models import Runner

    return await eventually(lambda: run_db(Runner.objects.filter(pk=runner_id, state=state).first))
