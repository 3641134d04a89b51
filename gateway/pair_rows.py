"""Rows of WebSockets that may hibernate and of the gateways that vouch for them. For database threads."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction

from actors.models import Actor
from gateway.models import GatewayLease, HibernatingPair
from orchestrator import clock
from orchestrator.contention import again
from orchestrator.statements import lock
from runners.protocol.messages import HibernatingRequest

FORGET_AFTER = timedelta(minutes=10)
"""A gateway whose lease lapsed so long ago is gone, and its pairs with it."""

_LISTED = """
SELECT pair.id, pair.actor_id, pair.gateway_id, pair.request_id, pair.leaving
FROM gateway_hibernatingpair pair JOIN gateway_gatewaylease lease ON lease.id = pair.gateway_id
WHERE lease.expires_at > %s AND pair.actor_id IN ({})
ORDER BY pair.id
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A WebSocket that an actor's generation has accepted; ids in hex."""

    actor_id: str
    generation: int
    request_id: str


@again
def renew(gateway_id: str, lease: timedelta, now: datetime | None = None) -> bool:
    """Renew a gateway's lease, or begin it; False if it had lapsed, and a start may not have listed its pairs."""
    now = now or clock.now()
    with transaction.atomic():
        held = GatewayLease.objects.select_for_update().filter(pk=gateway_id).first()
        GatewayLease.objects.update_or_create(pk=gateway_id, defaults={"expires_at": now + lease})
        dead = list(GatewayLease.objects.filter(expires_at__lt=now - FORGET_AFTER).values_list("pk", flat=True))
        if dead:
            HibernatingPair.objects.filter(gateway_id__in=dead).delete()
            GatewayLease.objects.filter(pk__in=dead).delete()
    return held is not None and held.expires_at > now


@again
def keep(gateway_id: str, pairs: Collection[Pair]) -> set[str]:
    """Store pairs; return the request ids of those that came too late: the next life began without them."""
    with transaction.atomic():
        generations = {row.pk: row.generation for row in lock(Actor, sorted({pair.actor_id for pair in pairs}))}
        in_time = [pair for pair in pairs if generations.get(pair.actor_id) == pair.generation]
        HibernatingPair.objects.bulk_create(
            HibernatingPair(actor_id=pair.actor_id, gateway_id=gateway_id, request_id=pair.request_id)
            for pair in in_time
        )
    return {pair.request_id for pair in pairs} - {pair.request_id for pair in in_time}


def leave(gateway_id: str, request_id: str) -> None:
    """Note that a client has left while its actor sleeps."""
    HibernatingPair.objects.filter(gateway_id=gateway_id, request_id=request_id).update(leaving=True)


@again
def forget(gateway_id: str, request_ids: Iterable[str]) -> None:
    """Delete pairs that are over."""
    HibernatingPair.objects.filter(gateway_id=gateway_id, request_id__in=list(request_ids)).delete()


@again
def forget_gateway(gateway_id: str) -> None:
    """Delete all pairs of a gateway that ends, and its lease."""
    HibernatingPair.objects.filter(gateway_id=gateway_id).delete()
    GatewayLease.objects.filter(pk=gateway_id).delete()


def take_hibernating(actor_ids: Collection[str], now: datetime) -> dict[str, tuple[HibernatingRequest, ...]]:
    """Return what the StartActor of each of these actors has to list, in the transaction that writes it.

    A pair whose client has left is listed this once.
    """
    with connection.cursor() as cursor:
        places = ", ".join(["%s"] * len(actor_ids))
        moment = connection.ops.adapt_datetimefield_value(now)
        cursor.execute(_LISTED.format(places), [moment, *actor_ids])
        found = cursor.fetchall()
    if leaving := [pk for pk, _, _, _, leaves in found if leaves]:
        HibernatingPair.objects.filter(pk__in=leaving).delete()
    listed: dict[str, tuple[HibernatingRequest, ...]] = {}
    for _, actor_id, gateway_id, request_id, _ in found:
        pair = HibernatingRequest(bytes.fromhex(gateway_id), bytes.fromhex(request_id))
        listed[actor_id] = (*listed.get(actor_id, ()), pair)
    return listed
