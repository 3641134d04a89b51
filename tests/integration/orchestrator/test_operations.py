"""What may be done by hand in the admin: asked first, then done, with a permission and an audit row for each."""

import re
from datetime import timedelta

import pytest
import redis
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from actors.models import Actor
from orchestrator import redis as stores
from orchestrator.models import AuditEntry
from runners.models import Runner, RunnerConfig
from tests.support.management import make_actor, make_destroyed_actor, make_pool, make_runner, signals

pytestmark = pytest.mark.django_db(transaction=True)

DUE = timezone.now() + timedelta(hours=1)


def clerk_with(*permissions: str) -> Client:
    user = get_user_model().objects.create_user("clerk", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def staff(db) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", password="secret"))
    return client


def url(model, name: str) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_operate", args=[name])


def do(client: Client, name: str, *rows, **more):
    form = {"id": [row.pk for row in rows], "confirmed": "yes"} | more
    return client.post(url(type(rows[0]), name), form)


def audits() -> list[tuple[str, str, str, str]]:
    return list(AuditEntry.objects.order_by("pk").values_list("user", "action", "target", "outcome"))


def serverless(namespace, **columns):
    lifespan = timedelta(minutes=15)
    return make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=lifespan, **columns)


def make(kind: str, namespace):
    match kind:
        case "asleep":
            return make_actor(namespace)
        case "running":
            return make_actor(namespace, status="running", runner_id="r", generation=0, due_at=DUE)
        case "backoff":
            return make_actor(namespace, status="backoff", cause="restart", state_due_at=DUE, due_at=DUE)
        case "pool":
            return serverless(namespace)
        case "paused pool":
            return serverless(namespace, paused=True)
        case "cordoned runner":
            return make_runner(namespace, "r", cordoned=True)
        case "runner":
            return make_runner(namespace, "r")


@pytest.mark.parametrize(
    ("name", "kind", "workflow", "signal"),
    [
        ("wake", "asleep", "actors", "wake"),
        ("sleep", "running", "actors", "sleep"),
        ("reschedule", "running", "actors", "reschedule"),
        ("reset", "backoff", "actors", "reschedule"),
        ("cordon", "runner", None, None),
        ("uncordon", "cordoned runner", "hosting", "offer"),
        ("drain", "runner", "runners", "drain"),
        ("evict", "runner", "runners", "evict"),
        ("pause", "pool", "pools", "bump"),
        ("resume", "paused pool", "pools", "bump"),
        ("retry", "pool", "pools", "retry"),
    ],
)
def test_an_operation_is_shown_then_done_and_told_by_an_audit_row(namespace, name, kind, workflow, signal):
    row = make(kind, namespace)
    client = clerk_with(f"{name}_{row._meta.model_name}")
    asked = client.get(url(type(row), name), {"id": row.pk})
    assert asked.status_code == 200
    assert "nothing has been done yet" in asked.content.decode()
    assert not AuditEntry.objects.exists()
    if workflow:
        assert signals(workflow, row.pk) == []

    assert do(client, name, row).status_code == 302
    assert audits() == [("clerk", name, row.pk, "asked for")]
    if workflow:
        assert [told["t"] for told in signals(workflow, row.pk)] == [signal]
    row.refresh_from_db()
    if isinstance(row, Runner):
        assert row.cordoned == (name == "cordon")
    if isinstance(row, RunnerConfig):
        assert row.paused == (name == "pause")


@pytest.mark.parametrize("name", ["wake", "sleep", "reschedule", "reset", "destroy"])
def test_each_operation_asks_for_its_own_permission(namespace, name):
    actor = make("backoff", namespace)
    others = {"wake", "sleep", "reschedule", "reset", "destroy"} - {name}
    client = clerk_with("view_actor", *(f"{other}_actor" for other in others))
    assert do(client, name, actor).status_code == 403
    assert client.get(url(Actor, name), {"id": actor.pk}).status_code == 403
    offered = client.get(reverse("admin:actors_actor_changelist")).content.decode()
    assert f'<option value="{name}">' not in offered
    assert all(f'<option value="{other}">' in offered for other in others)
    assert not AuditEntry.objects.exists()


def test_a_list_asks_before_it_does_and_names_what_is_left_alone(staff, namespace):
    sleeper, runner, gone = make("asleep", namespace), make("running", namespace), make_destroyed_actor(namespace)
    chosen = {"action": "wake", "_selected_action": [sleeper.pk, runner.pk, gone.pk]}
    shown = staff.post(reverse("admin:actors_actor_changelist"), chosen).content.decode()
    assert "left alone: it runs already" in shown
    assert "left alone: it is destroyed" in shown
    assert "Wake: 1" in shown
    assert signals("actors", sleeper.pk) == []


def test_what_has_changed_since_it_was_shown_is_left_alone(staff, namespace):
    actor = make("running", namespace)
    do(staff, "wake", actor)
    assert (audits(), signals("actors", actor.pk)) == ([], [])


def test_an_actor_is_destroyed_by_hand(staff, namespace, worker):
    actor = make("asleep", namespace)
    do(staff, "destroy", actor)
    assert Actor.objects.get(pk=actor.pk).status == "destroyed"
    assert [audit[1] for audit in audits()] == ["destroy"]


def test_an_operation_that_fails_says_so_in_its_audit_row(staff, namespace, monkeypatch):
    def away() -> None:
        raise redis.ConnectionError

    actor = make("asleep", namespace)
    monkeypatch.setattr("orchestrator.workflow.mailbox.get_redis", away)
    answer = staff.post(url(Actor, "wake"), {"id": actor.pk, "confirmed": "yes"}, follow=True)
    assert "a store is away" in answer.content.decode()
    assert [audit[3] for audit in audits()] == ["failed: a store is away"]
    assert stores.get_redis().ping()


def test_nobody_is_led_to_another_site(staff, namespace):
    answer = do(staff, "wake", make("asleep", namespace), back="https://evil.example/")
    assert answer["location"] == reverse("admin:actors_actor_changelist")


def test_a_page_offers_what_makes_sense(staff, namespace):
    def offered(row) -> set[str]:
        change = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
        shown = staff.get(change).content.decode()
        return set(re.findall(r"/operate/(\w+)/", shown))

    assert offered(serverless(namespace)) == {"pause", "retry"}
    assert offered(serverless(namespace, name="other", paused=True)) == {"resume"}
    assert offered(make_pool(namespace, name="normal")) == set()
    assert offered(make_runner(namespace, "r")) == {"cordon", "drain", "evict"}
    assert (
        offered(make_runner(namespace, "s", state="stopped", stop_at=DUE, due_at=None, holds_key=False)) == set()
    )


def test_unknown_operations_are_unknown(staff, namespace):
    assert staff.get(url(Actor, "explode")).status_code == 404


def test_pools_lead_to_runners_and_both_to_actors(staff, namespace):
    pool, runner = serverless(namespace), make_runner(namespace, "r")
    hosted = make_actor(namespace, status="running", runner_id=runner.pk, generation=0, due_at=DUE)
    page = staff.get(reverse("admin:runners_runnerconfig_change", args=[pool.pk])).content.decode()
    assert reverse("admin:runners_runner_change", args=[runner.pk]) in page
    assert reverse("admin:actors_actor_change", args=[hosted.pk]) in page
    page = staff.get(reverse("admin:runners_runner_change", args=[runner.pk])).content.decode()
    assert reverse("admin:actors_actor_change", args=[hosted.pk]) in page
    assert RunnerConfig.objects.count() == Runner.objects.count() == 1
