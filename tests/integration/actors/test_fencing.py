"""An actor's own transactions: what a life writes that has lost its actor is not kept."""

import asyncio
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, connections

from actors.fencing import atomic, in_transaction
from actors.models import Actor
from orchestrator.db import run_db
from orchestrator.models import Namespace
from runners.sdk import OwnershipLost, Response
from tests.support.management import NOON, make_actor

pytestmark = pytest.mark.django_db(transaction=True)
HELD_SECONDS = 0.3


@pytest.fixture
def owner(namespace):
    """A running actor and the life that owns it."""
    columns = {"status": "running", "runner_id": "runner-1", "generation": 4, "due_at": NOON}
    actor = make_actor(namespace, connectable_at=NOON, started_at=NOON, **columns)
    return SimpleNamespace(actor_id=actor.pk, runner_id="runner-1", generation=4)


def write(name: str = "mine") -> str:
    Namespace.objects.create(name=name, display_name="written by an actor")
    return name


def written() -> bool:
    return Namespace.objects.filter(name="mine").exists()


def test_the_owner_commits(owner):
    with atomic(owner):
        write()
    assert written()


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 5},
        {"runner_id": "runner-2"},
        {"status": "asleep", "runner_id": "", "slept_at": NOON},
        {"status": "destroyed", "runner_id": "", "destroyed_at": NOON},
    ],
    ids=["a later life", "another runner", "asleep", "destroyed"],
)
def test_a_life_that_has_lost_its_actor_writes_nothing(owner, change):
    Actor.objects.filter(pk=owner.actor_id).update(**change)
    with pytest.raises(OwnershipLost, match="generation 4"), atomic(owner):
        write()
    assert not written()


def test_an_actor_that_is_not_there_is_owned_by_nobody(owner):
    owner.actor_id = "stranger"
    with pytest.raises(OwnershipLost), atomic(owner):
        write()


def test_what_fails_is_rolled_back(owner):
    with pytest.raises(IntegrityError), atomic(owner):
        write(write())
    assert not written()


def test_nobody_takes_the_actor_away_before_the_commit(owner):
    trying, taken = Event(), Event()

    def take_away():
        trying.set()
        Actor.objects.filter(pk=owner.actor_id).update(generation=5)
        taken.set()
        connections.close_all()

    thread = Thread(target=take_away)
    with atomic(owner):
        thread.start()
        trying.wait()
        assert not taken.wait(HELD_SECONDS)
        write()
    thread.join()
    assert written()
    assert Actor.objects.get(pk=owner.actor_id).generation == 5


def test_in_an_event_loop_it_runs_in_a_thread_and_returns_what_the_work_returns(owner):
    async def story():
        assert await in_transaction(owner, write, name="mine") == "mine"
        owner.generation = 3
        with pytest.raises(OwnershipLost):
            await in_transaction(owner, write, "other")

    asyncio.run(story())
    assert written()
    assert not Namespace.objects.filter(name="other").exists()


def test_an_actor_of_the_sdk_is_the_owner_its_context_says(namespace):
    """A real life of the SDK, hosted without an engine: the engine's row says what it owns."""
    from runners.sdk.testing import LocalEngine

    async def fetch(ctx, request):
        await ctx.in_transaction(write)
        await run_db(write_too, ctx)
        return Response.text("written")

    def write_too(ctx):
        with ctx.atomic():
            write("too")

    async def story():
        async with LocalEngine({"actor": fetch}) as engine:
            actor = engine.actor("actor")
            columns = {"status": "running", "runner_id": "local-runner", "generation": 0, "due_at": NOON}
            await run_db(make_actor, namespace, id=actor.id, connectable_at=NOON, started_at=NOON, **columns)
            assert (await actor.fetch()).text == "written"
            await actor.lose()  # generation 1, of which the row knows nothing
            assert (await actor.fetch()).status_code == 500

    asyncio.run(story())
    assert written()
    assert Namespace.objects.filter(name="too").exists()
