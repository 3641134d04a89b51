"""What a destroyed actor has stored is erased, bit by bit, whatever is lost on the way."""

import pytest
from django.db import transaction
from django.utils import timezone

from actors import storage, storage_erasure as erasure
from actors.lifecycle import Destroy, Sleep
from actors.models import ActorStorage, StoredEntry
from orchestrator.redis import get_redis
from orchestrator.workflow.outbox import Outbox
from orchestrator.workflow.sweep import sweep
from tests.support.management import signals
from tests.support.storage import Hosted
from tests.support.turns import settle, turn

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hosted(namespace):
    return Hosted(namespace)


def test_a_destroyed_actor_leaves_nothing_and_others_lose_nothing(namespace, hosted):
    other = Hosted(namespace, "other")
    for one in (hosted, other):
        one.put(a="1", b="2")
    turn({hosted.actor.pk: [Destroy()], other.actor.pk: [Sleep()]})
    settle()
    assert set(StoredEntry.objects.values_list("actor_id", flat=True)) == {other.actor.pk}
    assert [account.pk for account in ActorStorage.objects.all()] == [other.actor.pk]


def test_an_actor_that_has_stored_nothing_gives_no_work(hosted):
    turn({hosted.actor.pk: [Destroy()]})
    assert signals(erasure.ERASURE, hosted.actor.pk) == []


def test_it_is_erased_in_pieces_and_what_is_left_is_found_by_the_sweep(hosted, monkeypatch):
    monkeypatch.setattr(storage, "DELETE_ROWS", 3)
    hosted.put(**{f"k{number}": "v" for number in range(7)})
    turn({hosted.actor.pk: [Destroy()]})
    left = []
    while ActorStorage.objects.exists():
        get_redis().flushall()  # the worker was killed and nobody knows of what is left but the rows
        sweep(timezone.now())
        assert signals(erasure.ERASURE, hosted.actor.pk) == [{"t": "tick"}]
        apply_once(hosted.actor.pk)
        left.append(StoredEntry.objects.count())
        account = ActorStorage.objects.first()
        assert account is None or account.used_bytes == 5 * left[-1]
    assert left == [4, 1, 0]
    get_redis().flushall()
    sweep(timezone.now())
    assert signals(erasure.ERASURE, hosted.actor.pk) == []


def test_many_are_erased_in_one_turn_and_no_more_than_a_piece(namespace, monkeypatch):
    monkeypatch.setattr(storage, "DELETE_ROWS", 3)
    many = [Hosted(namespace, f"host{number}") for number in range(4)]
    for one in many:
        one.put(a="1", b="2")
    turn({one.actor.pk: [Destroy()] for one in many})
    apply_once(*(one.actor.pk for one in many))
    assert StoredEntry.objects.count() == 5
    settle()
    assert not StoredEntry.objects.exists()
    assert not ActorStorage.objects.exists()


def test_the_storage_of_an_actor_that_lives_is_never_erased(hosted):
    hosted.put(a="1")
    apply_once(hosted.actor.pk)
    assert hosted.get("a") == b"1"


def apply_once(*actor_ids):
    """Have actors' erasure take one turn; what it posts goes to Redis."""
    outbox = Outbox()
    with transaction.atomic():
        erasure.apply({actor_id: [{"t": "erase"}] for actor_id in actor_ids}, outbox, timezone.now())
    outbox.perform()
