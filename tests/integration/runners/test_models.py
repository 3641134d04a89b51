"""The rows of runners and start requests: the database refuses what cannot be (I4, I9)."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from runners.models import Runner, RunnerConfig, ServerlessConnection
from tests.support.management import NOON, make_pool, make_runner

pytestmark = pytest.mark.django_db

UNSETTLED = [state for state in Runner.State.values if state != Runner.State.STOPPED]
HELD = [state for state in ServerlessConnection.State.values if state not in ("wanted", "ended")]


@pytest.mark.parametrize("state", UNSETTLED)
def test_a_runner_that_is_not_stopped_has_a_deadline(namespace, state):
    runner = make_runner(namespace, "r")
    with pytest.raises(IntegrityError, match="runner_unsettled_has_deadline"), transaction.atomic():
        Runner.objects.filter(pk=runner.pk).update(state=state, due_at=None)


def test_a_stopped_runner_needs_none(namespace):
    runner = make_runner(namespace, "r")
    assert Runner.objects.filter(pk=runner.pk).update(state="stopped", due_at=None) == 1


def test_no_slot_is_given_twice(namespace):
    runner = make_runner(namespace, "r")
    with pytest.raises(IntegrityError, match="runner_slots_hold"), transaction.atomic():
        Runner.objects.filter(pk=runner.pk).update(used_slots=runner.total_slots + 1)


def test_a_key_has_one_holder(namespace):
    make_runner(namespace, "r")
    make_runner(namespace, "r", holds_key=False, state="stopped", due_at=None)
    with pytest.raises(IntegrityError), transaction.atomic():
        make_runner(namespace, "r")


@pytest.mark.parametrize("state", HELD)
def test_a_start_request_that_a_connector_holds_has_a_deadline(namespace, state):
    pool = make_pool(
        namespace, kind=RunnerConfig.Kind.SERVERLESS, url="http://e", request_lifespan=timedelta(seconds=60)
    )
    request = ServerlessConnection.objects.create(pool=pool, endpoint_epoch=0)
    held = ServerlessConnection.objects.filter(pk=request.pk)
    assert held.update(state=state, claimed_until=NOON) == 1
    with pytest.raises(IntegrityError, match="connection_unsettled_has_deadline"), transaction.atomic():
        held.update(claimed_until=None)
