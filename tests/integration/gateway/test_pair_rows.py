"""The rows of WebSockets that may hibernate: who is listed, and for how long."""

from datetime import timedelta

import pytest
from django.utils import timezone

from gateway.models import GatewayLease, HibernatingPair
from gateway.pair_rows import FORGET_AFTER, Pair, forget, forget_gateway, keep, leave, renew, take_hibernating
from runners.protocol.messages import HibernatingRequest
from tests.support.management import make_actor

pytestmark = pytest.mark.django_db

HERE, THERE = "00000001", "00000002"
LEASE = timedelta(seconds=15)


@pytest.fixture
def actor(namespace):
    return make_actor(namespace, generation=3)


def pair(gateway, request):
    return HibernatingRequest(bytes.fromhex(gateway), bytes.fromhex(request))


def listed(*actors, now=None):
    return take_hibernating([actor.pk for actor in actors], now or timezone.now())


def test_the_sockets_of_each_actor_are_listed_in_the_order_they_came(actor, namespace):
    other = make_actor(namespace)
    for gateway in (HERE, THERE):
        renew(gateway, LEASE)
    keep(HERE, [Pair(actor.pk, 3, "000000aa"), Pair(other.pk, other.generation, "000000bb")])
    keep(THERE, [Pair(actor.pk, 3, "000000aa")])
    assert listed(actor, other) == {
        actor.pk: (pair(HERE, "000000aa"), pair(THERE, "000000aa")),
        other.pk: (pair(HERE, "000000bb"),),
    }
    forget(HERE, ["000000aa", "000000bb"])
    assert listed(actor, other) == {actor.pk: (pair(THERE, "000000aa"),)}


@pytest.mark.parametrize("generation", [2, 4])
def test_one_of_another_life_comes_too_late(actor, generation):
    renew(HERE, LEASE)
    late = keep(HERE, [Pair(actor.pk, generation, "000000aa"), Pair(actor.pk, 3, "000000bb")])
    assert late == {"000000aa"}
    assert listed(actor) == {actor.pk: (pair(HERE, "000000bb"),)}


def test_one_of_an_unknown_actor_comes_too_late(db):
    assert keep(HERE, [Pair("nobody", 0, "000000aa")]) == {"000000aa"}


def test_one_whose_client_has_left_is_listed_once(actor):
    renew(HERE, LEASE)
    keep(HERE, [Pair(actor.pk, 3, "000000aa"), Pair(actor.pk, 3, "000000bb")])
    leave(HERE, "000000aa")
    assert listed(actor) == {actor.pk: (pair(HERE, "000000aa"), pair(HERE, "000000bb"))}
    assert listed(actor) == {actor.pk: (pair(HERE, "000000bb"),)}


def test_a_lease_counts_until_its_end_and_says_if_it_had_lapsed(actor):
    now = timezone.now()
    assert not renew(HERE, LEASE, now)  # it begins
    keep(HERE, [Pair(actor.pk, 3, "000000aa")])
    assert renew(HERE, LEASE, now + LEASE / 2)
    last = now + LEASE / 2 + LEASE
    assert listed(actor, now=last - timedelta(milliseconds=1)) != {}
    assert listed(actor, now=last) == {}
    assert not renew(HERE, LEASE, last)


def test_gateways_that_are_long_dead_leave_nothing_behind(actor):
    now = timezone.now()
    renew(HERE, LEASE, now)
    keep(HERE, [Pair(actor.pk, 3, "000000aa")])
    renew(THERE, LEASE, now + LEASE + FORGET_AFTER)
    assert HibernatingPair.objects.exists()
    renew(THERE, LEASE, now + LEASE + FORGET_AFTER + timedelta(seconds=1))
    assert not HibernatingPair.objects.exists()
    assert GatewayLease.objects.get().pk == THERE


def test_one_that_ends_takes_everything_along(actor):
    renew(HERE, LEASE)
    keep(HERE, [Pair(actor.pk, 3, "000000aa")])
    forget_gateway(HERE)
    assert not HibernatingPair.objects.exists()
    assert not GatewayLease.objects.exists()
