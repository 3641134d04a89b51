"""From a target to the id of its actor, which may have to be found by its key, or made (PROTOCOL §8.3)."""

import base64
from collections import OrderedDict
from typing import TypeAlias
from weakref import WeakKeyDictionary

from actors.lifecycle import CrashPolicy
from actors.selectors import find_living
from actors.services import get_or_create_actor
from gateway.errors import ActorNotFound
from gateway.hub import Hub, open_hub
from gateway.query import ActorQuery, Creation
from gateway.routing import Target
from orchestrator.datacenters import check_datacenters
from orchestrator.db import run_db
from orchestrator.namespaces import find_namespace

REMEMBERED = 10_000

Key: TypeAlias = tuple[str, str, str]
"""Namespace, name and key."""

_remembered: WeakKeyDictionary[Hub, OrderedDict[Key, str]] = WeakKeyDictionary()


async def resolve(target: Target) -> str:
    """Return the id of the actor that is meant. One given as an id is taken at its word.

    An actor found by its key is remembered for as long as this process hears of it anyway, and so of its end:
    while it is awake, finding it again costs nothing.

    Raises:
        ActorNotFound: no living actor has this key.
        OrchestratorError: it has to be made, and cannot be (API §3.2).
    """
    if isinstance(target.actor, str):
        return target.actor
    wanted = target.actor
    if wanted.creation is not None:
        check_datacenters([wanted.creation.datacenter])
    key = (wanted.namespace, wanted.name, wanted.key)
    hub = open_hub()
    if hub is not None and (known := _recall(hub, key)) is not None:
        return known
    actor_id = await run_db(_find_or_create, wanted)
    if hub is not None:
        _remember(hub, key, actor_id)
    return actor_id


def _recall(hub: Hub, key: Key) -> str | None:
    known = _remembered.get(hub)
    actor_id = None if known is None else known.get(key)
    return actor_id if actor_id is not None and hub.watches.hears_of(actor_id) else None


def _remember(hub: Hub, key: Key, actor_id: str) -> None:
    known = _remembered.setdefault(hub, OrderedDict())
    known[key] = actor_id
    known.move_to_end(key)
    if len(known) > REMEMBERED:
        known.popitem(last=False)


def _find_or_create(wanted: ActorQuery) -> str:
    namespace = find_namespace(wanted.namespace)
    creation = wanted.creation
    if creation is None:
        actor = find_living(namespace=namespace, name=wanted.name, key=wanted.key)
        if actor is None:
            raise ActorNotFound
    else:
        actor, _ = get_or_create_actor(
            namespace=namespace,
            name=wanted.name,
            key=wanted.key,
            input_base64=_input(creation),
            pool_name=creation.pool,
            crash_policy=CrashPolicy(creation.crash_policy),
        )
    return actor.pk


def _input(creation: Creation) -> str | None:
    return None if creation.input_bytes is None else base64.b64encode(creation.input_bytes).decode()
