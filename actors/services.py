"""What the API and the gateway ask of actors. A service checks, writes what is new, and posts a signal; what
becomes of an actor is decided in `lifecycle.py` alone.
"""

import base64
import binascii
import json
import time
from contextlib import closing

from django.db import IntegrityError, transaction
from redis.client import PubSub

from actors import codec, lifecycle
from actors.errors import (
    DestructionUnconfirmed,
    InputTooLarge,
    KeyEmpty,
    KeyTaken,
    KeyTooLarge,
    PoolNotConfigured,
)
from actors.lifecycle import CrashPolicy, Signal
from actors.models import Actor
from actors.selectors import find_living
from orchestrator import clock
from orchestrator.contention import again
from orchestrator.errors import BadRequest
from orchestrator.ids import new_id
from orchestrator.models import Namespace
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox
from runners.channel import actor_channel
from runners.models import ActorName
from runners.selectors import pool_is_configured

MAX_NAME_BYTES = 1024
MAX_KEY_BYTES = 1024
MAX_INPUT_BYTES = 1_048_576
DESTROY_SECONDS = 10.0
"""Longest wait for the end of an actor."""

_WORKFLOW = "actors"
_LOOK_SECONDS = 0.1
_REPEAT_SECONDS = 1.0
_RECEIPT_SECONDS = 1.0
_ATTEMPTS = 10


def create_actor(
    *,
    namespace: Namespace,
    name: str,
    key: str | None,
    input_base64: str | None,
    pool_name: str,
    crash_policy: CrashPolicy,
) -> Actor:
    """Store a new actor and have it started.

    Raises:
        PoolNotConfigured, KeyEmpty, KeyTooLarge, InputTooLarge, BadRequest: it cannot be made like this.
        KeyTaken: a living actor of the name has the key; `existing_actor_id` says which.
    """
    content = _checked(namespace, name, key, input_base64, pool_name)
    for _ in range(_ATTEMPTS):
        try:
            return _insert(namespace, name, key, content, pool_name, crash_policy)
        except IntegrityError:
            holder = find_living(namespace=namespace, name=name, key=key) if key is not None else None
            if holder is not None:
                raise KeyTaken(existing_actor_id=holder.pk, key=key) from None
            # It was destroyed between our insert and our look.
    raise KeyTaken(key=key)


def get_or_create_actor(
    *,
    namespace: Namespace,
    name: str,
    key: str,
    input_base64: str | None,
    pool_name: str,
    crash_policy: CrashPolicy,
) -> tuple[Actor, bool]:
    """Return the living actor that holds the key, or a new one; and whether it is new.

    Callers at the same time get the same actor, and one of them learns that it is new. An existing actor is
    returned as it is. Raises what `create_actor` does, except KeyTaken.
    """
    for attempt in range(_ATTEMPTS):
        existing = find_living(namespace=namespace, name=name, key=key)
        if existing is not None:
            return existing, False
        try:
            created = create_actor(
                namespace=namespace,
                name=name,
                key=key,
                input_base64=input_base64,
                pool_name=pool_name,
                crash_policy=crash_policy,
            )
        except KeyTaken:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return created, True
    raise AssertionError("the last attempt returns or raises")


def wake_actor(*, actor_id: str, request: str | None = None) -> None:
    """Ask an actor to run; one that runs answers with *ready*. `request` says what for, in the timeline."""
    _post(actor_id, lifecycle.Wake(request))


def sleep_actor(*, actor: Actor) -> None:
    """Ask an actor to go to sleep; nothing happens to one that does not run."""
    _post(actor.pk, lifecycle.Sleep())


def reschedule_actor(*, actor: Actor) -> None:
    """Ask for a fresh start, on another runner if need be; wakes one that sleeps, ends a backoff."""
    _post(actor.pk, lifecycle.Reschedule())


def destroy_actor(*, actor: Actor) -> None:
    """End an actor for good and return when that is committed and every gateway knows it.

    A request that begins later is refused, whatever a gateway had remembered. Destroying an actor twice is
    fine. Blocks, a moment as a rule and 10 s at most.

    Raises:
        DestructionUnconfirmed: nobody has carried it out in time.
    """
    if actor.destroyed_at is not None:
        return None
    with closing(get_redis().pubsub()) as messages:  # type: ignore[no-untyped-call]
        messages.subscribe(actor_channel(actor.pk))
        messages.get_message(timeout=_REPEAT_SECONDS)  # the confirmation, so that no message is missed
        deadline = time.monotonic() + DESTROY_SECONDS
        post_at = 0.0
        while (now := time.monotonic()) < deadline:
            if now >= post_at:
                _post(actor.pk, lifecycle.Destroy())
                post_at = now + _REPEAT_SECONDS
            messages.get_message(timeout=_LOOK_SECONDS)
            if Actor.objects.filter(pk=actor.pk, destroyed_at__isnull=False).exists():
                return _tell_gateways(actor.pk, messages)
    raise DestructionUnconfirmed


def _tell_gateways(actor_id: str, messages: PubSub) -> None:
    """Have every process that listens for the actor confirm that it is gone; a dead one is not waited for long.

    `messages` listens, too, and counts for one: to stop listening first would take until Redis has heard of it.
    """
    receipt = f"receipt:{new_id()}"
    messages.subscribe(receipt)
    news = json.dumps({"m": "destroyed", "receipt": receipt}).encode()
    told = get_redis().publish(actor_channel(actor_id), news)
    deadline = time.monotonic() + _RECEIPT_SECONDS
    while told > 0 and (left := deadline - time.monotonic()) > 0:
        message = messages.get_message(ignore_subscribe_messages=True, timeout=left)
        if message is not None:
            told -= message["channel"] == receipt.encode() or message["data"] == news


def _post(actor_id: str, signal: Signal) -> None:
    mailbox.post(_WORKFLOW, actor_id, codec.encode_signal(signal))


@again
def _insert(
    namespace: Namespace,
    name: str,
    key: str | None,
    content: bytes | None,
    pool_name: str,
    crash_policy: CrashPolicy,
) -> Actor:
    now = clock.now()
    actor = Actor(
        namespace=namespace,
        name=name,
        key=key,
        pool_name=pool_name,
        crash_policy=crash_policy.value,
        input=content,
        created_at=now,
    )
    actor.state = lifecycle.Created(lifecycle.Life(crash_policy), due=now)
    start = codec.encode_signal(lifecycle.Start())
    with transaction.atomic():
        actor.save(force_insert=True)
        ActorName.objects.bulk_create([ActorName(namespace=namespace, name=name)], ignore_conflicts=True)
        # Robust: once committed it exists, and being due it is started by the sweep if this message is lost.
        transaction.on_commit(lambda: mailbox.post(_WORKFLOW, actor.pk, start), robust=True)
    return actor


def _checked(
    namespace: Namespace, name: str, key: str | None, input_base64: str | None, pool_name: str
) -> bytes | None:
    """Check a creation in the order of API §3.2 and return its input, decoded."""
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadRequest(reason=f"name is longer than {MAX_NAME_BYTES} bytes")
    if not pool_is_configured(namespace=namespace, name=pool_name):
        raise PoolNotConfigured(namespace=namespace.name, pool_name=pool_name)
    if key is not None:
        _check_key(key)
    return None if input_base64 is None else _decoded(input_base64)


def _check_key(key: str) -> None:
    if not key:
        raise KeyEmpty
    encoded = key.encode()
    if len(encoded) > MAX_KEY_BYTES:
        preview = encoded[:MAX_KEY_BYTES].decode(errors="ignore")  # cut at the border of a character
        raise KeyTooLarge(max_size=MAX_KEY_BYTES, key_preview=preview)


def _decoded(input_base64: str) -> bytes:
    padding = len(input_base64) - len(input_base64.rstrip("="))
    if len(input_base64) * 3 // 4 - padding > MAX_INPUT_BYTES:
        raise InputTooLarge(max_size=MAX_INPUT_BYTES)
    try:
        return base64.b64decode(input_base64, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(reason="input is not base64 (standard alphabet, padded)") from None
