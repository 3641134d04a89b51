"""The pool workflow on real stores: what runners and actors do between its turns must cost nobody a life."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from actors import life
from orchestrator.workflow.outbox import Outbox
from runners import claims, pool_tasks
from runners.models import Runner, RunnerConfig, ServerlessConnection
from runners.pool_plan import REMIND
from tests.support.management import make_actor, make_pool, make_runner
from tests.support.turns import SOCKET, settle, turn

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
ONLY_IF_IDLE = {"t": "drain", "grace_ms": 10_000, "by": "pool", "only_if_idle": True}


@pytest.fixture
def pool(namespace) -> RunnerConfig:
    """A pool of runners of one slot."""
    return make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=900 * SECOND)


@pytest.fixture
def runner(namespace) -> Runner:
    """A runner that is connected and has no actor."""
    now = timezone.now()
    moments = {"last_ping_at": now, "connected_at": now, "due_at": now + 15 * SECOND}
    return make_runner(namespace, "r", total_slots=1, socket_id=SOCKET, **moments)


@pytest.fixture
def request_(pool, runner) -> ServerlessConnection:
    """The request that brought the runner."""
    return sent(pool, "ready", runner_id=runner.pk, ready_at=timezone.now())


def sent(pool, state, **columns) -> ServerlessConnection:
    now = timezone.now()
    lease = {"claimed_by": "connector", "claimed_until": now + 60 * SECOND}
    known = {"state": state, "endpoint_epoch": pool.endpoint_epoch, "started_at": now} | lease
    return ServerlessConnection.objects.create(pool=pool, **known | columns)


def plan(pool, now=None) -> Outbox:
    """Have the pool planned; what follows from it is in the outbox and has not gone out."""
    outbox = Outbox()
    with transaction.atomic():
        pool_tasks.apply({pool.pk: [{"t": "bump"}]}, outbox, now or timezone.now())
    return outbox


def told(outbox, runner) -> list[dict]:
    return [letter.signal for letter in outbox.letters if (letter.workflow, letter.key) == ("runners", runner.pk)]


def requests(pool) -> list[str]:
    return list(ServerlessConnection.objects.filter(pool=pool).order_by("pk").values_list("state", flat=True))


def reread(*rows):
    for row in rows:
        row.refresh_from_db()


def test_a_surplus_runner_that_is_given_an_actor_before_it_is_told_keeps_it(namespace, pool, runner, request_):
    actor = make_actor(namespace)
    farewell = plan(pool)
    assert told(farewell, runner) == [ONLY_IF_IDLE]
    turn({actor.pk: [life.Wake()]})
    farewell.perform()
    settle()
    later = plan(pool, timezone.now() + REMIND)
    assert told(later, runner) == []
    reread(actor, runner, request_)
    assert (actor.status, actor.runner_id, actor.generation) == ("starting", runner.pk, 0)
    assert (runner.state, runner.used_slots) == ("live", 1)
    assert (request_.state, request_.drain_at) == ("ready", None)
    assert requests(pool) == ["ready"]


def test_a_surplus_runner_that_is_idle_still_goes_and_who_comes_then_has_another_started(
    namespace, pool, runner, request_
):
    actor = make_actor(namespace)
    plan(pool).perform()
    settle()
    reread(runner)
    assert (runner.state, requests(pool)) == ("evicting", ["ready"])
    turn({actor.pk: [life.Wake()]})
    settle()
    reread(actor, pool)
    assert (actor.status, pool.desired) == ("pending", 1)
    assert requests(pool) == ["ready", "wanted"]  # at once: the one that goes counts for nothing


def test_a_runner_that_was_not_told_that_it_is_surplus_is_told_again(pool, runner, request_):
    now = timezone.now()
    assert told(plan(pool, now), runner) == [ONLY_IF_IDLE]
    reread(pool)
    assert pool.due_at == now + REMIND
    assert told(plan(pool, now + REMIND / 2), runner) == []
    assert told(plan(pool, now + REMIND), runner) == [ONLY_IF_IDLE]


def test_the_request_of_a_runner_that_is_gone_is_closed_also_if_nobody_has_told_the_pool(
    namespace, pool, runner, request_
):
    make_actor(namespace, status="pending", pending_at=timezone.now(), due_at=timezone.now())
    Runner.objects.update(state="stopped", holds_key=False, stop_at=timezone.now(), due_at=None)
    assert told(plan(pool), runner) == []
    assert requests(pool) == ["closing", "wanted"]


def test_a_request_that_is_sent_anew_has_nothing_of_the_runner_it_brought_before(pool, runner, request_):
    plan(pool)
    ServerlessConnection.objects.update(claimed_until=timezone.now() - SECOND)  # its connector is dead
    [claimed] = claims.claim(connector_id="another", limit=1)
    reread(request_)
    assert (claimed.id, request_.state) == (request_.pk, "starting")
    assert (request_.runner_id, request_.ready_at, request_.drain_at) == ("", None, None)


@pytest.mark.parametrize("state", ["starting", "open"])
def test_a_request_that_was_let_go_before_its_runner_came_serves_who_comes_next(namespace, pool, runner, state):
    opened = {"opened_at": timezone.now(), "status": 200} if state == "open" else {}
    sent(pool, state, **opened)
    plan(pool)
    assert requests(pool) == ["draining"]
    actor = make_actor(namespace)
    Runner.objects.update(socket_id="")  # it has not come yet
    turn({actor.pk: [life.Wake()]})
    settle()
    assert requests(pool) == [state]


def test_a_runner_that_was_given_an_actor_before_it_was_named_keeps_it_though_its_request_was_let_go(
    namespace, pool, runner
):
    request_ = sent(pool, "open", opened_at=timezone.now(), status=200)
    plan(pool)
    assert requests(pool) == ["draining"]
    actor = make_actor(namespace)
    turn({actor.pk: [life.Wake()]})
    outbox = Outbox()
    ready = {"t": "ready", "request_id": request_.pk, "runner_id": runner.pk}
    with transaction.atomic():
        pool_tasks.apply({pool.pk: [ready]}, outbox, timezone.now())
    assert told(outbox, runner) == []
    outbox.perform()
    settle()
    reread(actor, runner, request_)
    assert (actor.status, actor.runner_id, runner.state) == ("starting", runner.pk, "live")
    assert (request_.state, request_.runner_id) == ("ready", runner.pk)
