"""What tests of the gateway look at: its refusals, and what it still holds."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx

from tests.support.live import has_status, wake
from tests.support.scripted_runner import SLEEP, STOPPED, ScriptedRunner

NOTHING = {"inboxes": 0, "exchanges": 0, "listeners": 0, "users": 0}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and `group.code` of an answer that must be a refusal of the gateway."""
    body = answer.json()
    code = f"{body['group']}.{body['code']}"
    assert answer.headers["x-rivet-error"] == code
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-rivet-ray-id"]) == 30
    return answer.status_code, code


def count_held() -> dict[str, int]:
    """Count what the gateway of this loop has not let go of: `NOTHING` once every request is over."""
    from gateway.hub import open_hub

    hub: Any = open_hub()
    watches = [] if hub is None else list(hub.watches._watches.values())
    return {
        "inboxes": 0 if hub is None else len(hub._inboxes),
        "exchanges": sum(len(watch.exchanges) for watch in watches),
        "listeners": sum(len(watch.listeners) for watch in watches),
        "users": sum(watch.users for watch in watches),
    }


@contextmanager
def deaf_to(actor_id: str) -> Iterator[None]:
    """Keep what is told of an actor from this process for a while; then it hears all of it."""
    from orchestrator.bus import get_bus
    from runners.channel import actor_channel

    subscription: Any = get_bus()._subscriptions[actor_channel(actor_id).encode()]
    handlers, missed = subscription.handlers, []
    subscription.handlers = (missed.append,)
    try:
        yield
    finally:
        subscription.handlers = handlers
        for payload in missed:
            for handler in handlers:
                handler(payload)


@asynccontextmanager
async def next_life_unheard_of(runner: ScriptedRunner, actor_id: str) -> AsyncIterator[None]:
    """Have an actor stop and start again at once, of which the gateway hears only after the block.

    The runner obeys no commands from here on: its test says what it has to say of the new life.
    """
    runner.obeys = False
    await runner.say(actor_id, SLEEP)
    await has_status(actor_id, "stopping")
    await wake(actor_id)
    with deaf_to(actor_id):
        await runner.say(actor_id, STOPPED)
        yield
