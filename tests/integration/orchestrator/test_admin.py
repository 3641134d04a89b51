"""The admin: every page answers, at a cost that does not grow with the rows, and nothing can be broken by hand."""

import html
import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from actors import life
from actors.models import Actor
from actors.services import create_actor
from orchestrator.access import digest
from orchestrator.admin import ReadOnlyAdmin
from orchestrator.arrows import Arrow, Participant
from orchestrator.ids import new_id
from orchestrator.models import AccessToken, AuditEntry, Namespace, SetAsideSignal, TimelineEntry
from orchestrator.timeline import record
from orchestrator.tokens import create_token
from runners.models import ActorName, Command, Runner, RunnerConfig, ServerlessConnection
from tests.support.management import make_actor, make_destroyed_actor, make_pool, make_runner, signals
from tests.support.turns import post, settle

pytestmark = pytest.mark.django_db(transaction=True)

OURS = [
    AuditEntry,
    Namespace,
    AccessToken,
    TimelineEntry,
    SetAsideSignal,
    RunnerConfig,
    Runner,
    ServerlessConnection,
    Command,
    ActorName,
    Actor,
]
MAY_ADD = {AccessToken}
MAY_CHANGE = {Namespace, RunnerConfig}
MAY_DELETE = {SetAsideSignal}
LIFESPAN = timedelta(seconds=900)


@pytest.fixture
def staff(db) -> Client:
    user = get_user_model().objects.create_superuser("root", password="secret")
    client = Client()
    client.force_login(user)
    return client


def page(model, kind: str, *arguments: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{kind}", args=arguments)


def fill(namespace, count: int, label: str) -> None:
    """Store so many rows of every model, each row of a list with others behind it."""
    now = timezone.now()
    for n in range(count):
        name = f"{label}-{n}"
        pool = make_pool(namespace, name, kind="serverless", url="http://127.0.0.1:9", request_lifespan=LIFESPAN)
        runner = make_runner(namespace, name, name=name)
        ServerlessConnection.objects.create(pool=pool, endpoint_epoch=1, runner_id=runner.pk, error={"x": 1})
        actor = make_actor(namespace, name=name, pool_name=name, failure={"kind": "no_capacity"})
        Command.objects.create(
            runner=runner, seq=1, actor_id=actor.pk, generation=0, index=0, kind="start", frame=b"", created_at=now
        )
        ActorName.objects.create(namespace=namespace, name=name, metadata={"x": 1})
        SetAsideSignal.objects.create(workflow="actors", key=actor.pk, signal={}, error="no")
        Namespace.objects.create(name=name, display_name=name)
        create_token(namespace=namespace, label=name, scopes=["read"])
        AuditEntry.objects.create(user="root", action="wake", model="actor", target=actor.pk)
        arrow = Arrow(Participant.ACTOR, Participant.RUNNER, "StartActor", actor_id=actor.pk, runner_id=runner.pk)
        record([arrow], now)


def deepen() -> None:
    """Store more of what belongs to the rows there are."""
    for pool in RunnerConfig.objects.all():
        for _ in range(10):
            ServerlessConnection.objects.create(pool=pool, endpoint_epoch=1, runner_id=pool.pk, error={"x": 1})
    for actor, runner in zip(Actor.objects.all(), Runner.objects.all(), strict=True):
        arrow = Arrow(Participant.ACTOR, Participant.RUNNER, "StartActor", actor_id=actor.pk, runner_id=runner.pk)
        record([arrow] * 10, timezone.now())


def cost(client: Client, url: str) -> int:
    client.get(url)  # whoever comes first also looks up what is remembered from then on
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(url)
    assert answer.status_code == 200, url
    return len(queries)


def test_every_model_has_its_pages():
    registered = {model for model in admin.site._registry if model.__module__.split(".")[0] != "django"}
    assert registered == set(OURS)


@pytest.mark.parametrize("model", OURS)
def test_a_list_costs_the_same_however_many_rows_it_has(staff, namespace, model):
    fill(namespace, 2, "few")
    few = cost(staff, page(model, "changelist"))
    fill(namespace, 20, "many")
    assert cost(staff, page(model, "changelist")) == few
    assert few <= 8


@pytest.mark.parametrize("model", OURS)
def test_the_page_of_a_row_costs_the_same_however_much_is_behind_it(staff, namespace, model):
    fill(namespace, 2, "few")
    row = model.objects.order_by("-pk").first()
    few = cost(staff, page(model, "change", row.pk))
    deepen()
    assert cost(staff, page(model, "change", row.pk)) == few
    assert few <= 20


@pytest.mark.parametrize("model", OURS)
def test_a_search_answers(staff, namespace, model):
    fill(namespace, 1, "one")
    row = model.objects.order_by("-pk").first()
    assert staff.get(page(model, "changelist"), {"q": str(row.pk)}).status_code == 200


@pytest.mark.parametrize("model", [model for model in OURS if model not in MAY_CHANGE])
def test_what_workflows_write_cannot_be_changed(staff, namespace, model):
    fill(namespace, 1, "one")
    row = model.objects.order_by("-pk").first()
    assert staff.post(page(model, "change", row.pk), {"name": "x"}).status_code == 403


@pytest.mark.parametrize("model", [model for model in OURS if model not in MAY_ADD])
def test_nothing_can_be_added(staff, namespace, model):
    assert staff.get(page(model, "add")).status_code == 403


@pytest.mark.parametrize("model", [model for model in OURS if model not in MAY_DELETE])
def test_nothing_can_be_deleted(staff, namespace, model):
    fill(namespace, 1, "one")
    row = model.objects.order_by("-pk").first()
    assert staff.post(page(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    staff.post(
        page(model, "changelist"), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    )
    assert model.objects.filter(pk=row.pk).exists()


def test_a_signal_that_was_set_aside_can_be_deleted(staff, namespace):
    row = SetAsideSignal.objects.create(workflow="actors", key="k", signal={}, error="no")
    staff.post(page(SetAsideSignal, "delete", row.pk), {"post": "yes"})
    assert not SetAsideSignal.objects.exists()


def test_strangers_see_nothing(namespace):
    answer = Client().get(page(Actor, "changelist"))
    assert (answer.status_code, answer["location"].split("?")[0]) == (302, "/admin/login/")


# What a page shows


def test_an_actors_page_tells_its_story(staff, namespace):
    now = timezone.now()
    make_pool(namespace)
    runner = make_runner(
        namespace, "r", socket_id="s", last_ping_at=now, total_slots=1, due_at=now + timedelta(minutes=1)
    )
    actor = make_actor(namespace, input=b"secret")
    post(actor, life.Wake("GET /<script>"))
    settle()
    shown = staff.get(page(Actor, "change", actor.pk)).content.decode()
    assert "Actor workflow → Runner workflow → Runner WS → Runner" in shown
    assert '<svg class="sequence"' in shown
    assert "<script>" not in shown.split("GET /")[1][:20]
    assert page(Runner, "change", runner.pk) in shown
    assert "told its runner to start it" in shown


def test_a_runners_page_leads_to_its_actors_and_its_pool(staff, namespace):
    runner = make_runner(namespace, "r")
    actor = make_actor(namespace, status="running", runner_id=runner.pk, generation=0, due_at=timezone.now())
    other = make_actor(namespace)
    shown = staff.get(page(Runner, "change", runner.pk)).content.decode()
    assert page(Actor, "changelist") + f"?runner_id__exact={runner.pk}" in shown
    assert page(RunnerConfig, "changelist") in shown
    found = staff.get(page(Actor, "changelist"), {"runner_id__exact": runner.pk}).content.decode()
    assert actor.pk in found
    assert other.pk not in found


@pytest.mark.parametrize(
    ("model", "lookups"),
    [
        (Actor, {"namespace__id__exact": "x", "pool_name__exact": "p"}),
        (Actor, {"runner_id__exact": "r"}),
        (Runner, {"namespace__id__exact": "x", "name__exact": "p"}),
        (RunnerConfig, {"namespace__id__exact": "x", "name__exact": "p"}),
        (ServerlessConnection, {"runner_id__exact": "r"}),
        (Command, {"runner__id__exact": "r"}),
    ],
)
def test_the_lists_that_pages_lead_to_can_be_had(staff, namespace, model, lookups):
    answer = staff.get(page(model, "changelist"), lookups)
    assert answer.status_code == 200, answer.get("location")


def test_a_pools_page_shows_its_requests_and_no_secrets(staff, namespace):
    pool = make_pool(
        namespace,
        kind="serverless",
        url="http://127.0.0.1:9",
        request_lifespan=LIFESPAN,
        headers={"authorization": "Bearer hunter2"},
        error={"serverless_http_error": {"status_code": 500, "body": "no"}},
    )
    request = ServerlessConnection.objects.create(pool=pool, endpoint_epoch=1)
    shown = staff.get(page(RunnerConfig, "change", pool.pk)).content.decode()
    assert page(ServerlessConnection, "change", request.pk) in shown
    assert "authorization" in shown
    assert "hunter2" not in shown
    assert "hunter2" not in staff.get(page(RunnerConfig, "changelist")).content.decode()


# What may be changed


def pool_form(**changes: object) -> dict[str, object]:
    form = {
        "url": "http://127.0.0.1:9",
        "slots_per_runner": 1,
        "min_runners": 0,
        "max_runners": 1000,
        "runners_margin": 0,
        "request_lifespan": "00:15:00",
        "drain_grace_period": "",
        "drain_on_version_upgrade": "on",
        "metadata_poll_interval": "",
    }
    return form | changes


def test_a_pool_is_changed_as_by_the_api(staff, namespace):
    headers = {"authorization": "Bearer hunter2"}
    pool = make_pool(
        namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=LIFESPAN, headers=headers
    )
    answer = staff.post(page(RunnerConfig, "change", pool.pk), pool_form(min_runners=2))
    assert answer.status_code == 302, answer.content.decode()
    pool.refresh_from_db()
    assert (pool.min_runners, pool.headers, pool.endpoint_epoch) == (2, headers, 0)
    assert signals("pools", pool.pk) == [{"t": "bump"}]

    staff.post(page(RunnerConfig, "change", pool.pk), pool_form(min_runners=2, url="http://127.0.0.1:8"))
    pool.refresh_from_db()
    assert (pool.url, pool.endpoint_epoch) == ("http://127.0.0.1:8", 1)


@pytest.mark.parametrize(
    "changes",
    [{"url": "ftp://x"}, {"slots_per_runner": 0}, {"drain_grace_period": "01:00:00"}, {"request_lifespan": ""}],
)
def test_what_the_api_refuses_the_admin_refuses(staff, namespace, changes):
    pool = make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=LIFESPAN)
    answer = staff.post(page(RunnerConfig, "change", pool.pk), pool_form(**changes))
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode() or "errornote" in answer.content.decode()
    assert RunnerConfig.objects.get(pk=pool.pk).version == 0


def test_a_deleted_pool_is_left_alone(staff, namespace):
    pool = make_pool(
        namespace,
        kind="serverless",
        url="http://127.0.0.1:9",
        request_lifespan=LIFESPAN,
        deleted_at=timezone.now(),
    )
    assert staff.get(page(RunnerConfig, "change", pool.pk)).status_code == 200
    assert staff.post(page(RunnerConfig, "change", pool.pk), pool_form()).status_code == 403


def test_a_namespace_may_be_given_another_display_name(staff, namespace):
    staff.post(page(Namespace, "change", namespace.pk), {"display_name": "New", "name": "new"})
    namespace.refresh_from_db()
    assert (namespace.display_name, namespace.name) == ("New", "default")


def _token_form(namespace, **changes):
    form = {"namespace": namespace.pk, "label": "ci", "scopes": ["client"], "expires_at_0": "", "expires_at_1": ""}
    return form | changes


def test_a_token_is_made_and_shown_once(staff, namespace):
    assert staff.get(page(AccessToken, "add")).status_code == 200
    answer = staff.post(page(AccessToken, "add"), _token_form(namespace))
    [secret] = re.findall("torpor_[-_0-9A-Za-z]{43}", answer.content.decode())
    assert "no-store" in answer.headers["cache-control"]
    assert secret not in str(answer.cookies)
    row = AccessToken.objects.get()
    assert (row.label, row.scopes, row.digest) == ("ci", ["client"], digest(secret))
    for shown in (page(AccessToken, "changelist"), page(AccessToken, "change", row.pk)):
        told = staff.get(shown).content.decode()
        assert secret not in told
        assert row.digest not in told
    staff.post(page(AccessToken, "changelist"), {"action": "revoke", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert row.revoked_at is not None
    done = AuditEntry.objects.order_by("pk").values_list("user", "action", "model", "target", "outcome")
    told = [("make", "made"), ("revoke", "asked for")]
    assert list(done) == [("root", action, "accesstoken", row.pk, outcome) for action, outcome in told]


@pytest.mark.parametrize(
    "changes",
    [{"scopes": []}, {"scopes": ["admin"]}, {"expires_at_0": "2020-01-01", "expires_at_1": "00:00:00"}],
    ids=["none", "unknown", "expired"],
)
def test_what_cannot_be_a_token_is_told(staff, namespace, changes):
    answer = staff.post(page(AccessToken, "add"), _token_form(namespace, **changes))
    assert "errorlist" in answer.content.decode()
    assert not AccessToken.objects.exists()


def test_who_may_only_look_can_neither_make_nor_revoke(namespace):
    row, _ = create_token(namespace=namespace, label="", scopes=["read"])
    user = get_user_model().objects.create_user("reader", password="secret", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_accesstoken"))
    reader = Client()
    reader.force_login(user)
    assert reader.get(page(AccessToken, "changelist")).status_code == 200
    assert reader.post(page(AccessToken, "add"), _token_form(namespace)).status_code == 403
    reader.post(page(AccessToken, "changelist"), {"action": "revoke", "_selected_action": [row.pk]})
    row.refresh_from_db()
    assert row.revoked_at is None


# The page of a timeline


def timeline_url(actor) -> str:
    return reverse("admin:actors_actor_timeline", args=[actor.pk])


def test_the_timeline_page_draws_the_parts_that_are_asked_for(staff, namespace):
    actor = make_actor(namespace)
    early = timezone.now() - timedelta(hours=2)
    record([Arrow(Participant.USER, Participant.GATEWAY, "GET /early", actor_id=actor.pk)], early)
    record([Arrow(Participant.USER, Participant.GATEWAY, "GET /<late>", actor_id=actor.pk)], timezone.now())
    whole = staff.get(timeline_url(actor)).content.decode()
    assert '<svg class="sequence"' in whole
    assert "GET /early" in whole
    assert "GET /&lt;late&gt;" in whole
    assert "<late>" not in whole
    assert "sequenceDiagram" in whole
    since = f"{early + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    assert "GET /early" not in staff.get(timeline_url(actor), {"since": since}).content.decode()


def test_a_mistake_in_the_filter_is_told_and_all_is_shown(staff, namespace):
    actor = make_actor(namespace)
    record([Arrow(Participant.USER, Participant.GATEWAY, "GET /", actor_id=actor.pk)], timezone.now())
    shown = staff.get(timeline_url(actor), {"generation": "first"}).content.decode()
    assert "Enter a whole number" in shown
    assert "GET /" in shown


def test_a_timeline_is_shown_to_those_who_may_see_actors_alone(staff, namespace):
    actor = make_actor(namespace)
    clerk = get_user_model().objects.create_user("clerk", password="x", is_staff=True)
    client = Client()
    client.force_login(clerk)
    assert client.get(timeline_url(actor)).status_code == 403
    assert Client().get(timeline_url(actor)).status_code == 302
    assert staff.get(reverse("admin:actors_actor_timeline", args=["nobody"])).status_code == 404


# Pages of a list


def shown_actors(client: Client, address: str) -> tuple[list[str], dict[str, str]]:
    """Return the ids a page of the list shows, and where its links to other pages lead."""
    text = client.get(address).content.decode()
    links = {rel: html.unescape(href) for href, rel in re.findall(r'<a href="([^"]+)" rel="(\w+)"', text)}
    return re.findall(r'name="_selected_action" value="(\w+)"', text), links


def test_a_list_is_walked_to_its_end_and_back_without_counting(staff, namespace, monkeypatch):
    monkeypatch.setattr(ReadOnlyAdmin, "list_per_page", 2)
    ids = [make_actor(namespace, key=str(n)).pk for n in range(5)][::-1]
    address = page(Actor, "changelist")
    walked = []
    for more in (True, True, False):
        with CaptureQueriesContext(connection) as queries:
            found, links = shown_actors(staff, address)
        assert not [query for query in queries if "COUNT(" in query["sql"]]
        walked += found
        assert ("next" in links) is more
        address = page(Actor, "changelist") + links.get("next", "")
    assert walked == ids
    found, links = shown_actors(staff, page(Actor, "changelist") + links["prev"])
    assert (found, set(links)) == (ids[2:4], {"prev", "next"})
    found, links = shown_actors(staff, page(Actor, "changelist") + links["prev"])
    assert (found, set(links)) == (ids[:2], {"next"})


def test_a_page_keeps_its_filters(staff, namespace, monkeypatch):
    monkeypatch.setattr(ReadOnlyAdmin, "list_per_page", 1)
    sleepers = [make_actor(namespace, key=str(n)).pk for n in range(2)]
    make_destroyed_actor(namespace)
    found, links = shown_actors(staff, page(Actor, "changelist") + "?status__exact=asleep")
    assert found == [sleepers[1]]
    assert shown_actors(staff, page(Actor, "changelist") + links["next"])[0] == [sleepers[0]]


@pytest.mark.parametrize("place", ["before=0", "after=zzz", "before=%00", "after="])
def test_a_place_that_is_none_is_no_error(staff, namespace, place):
    make_actor(namespace)
    for model in (Actor, TimelineEntry):
        assert staff.get(f"{page(model, 'changelist')}?{place}").status_code == 200


def test_actors_are_found_by_id_runner_name_and_key(staff, namespace):
    make_pool(namespace)
    alice = create_actor(
        namespace=namespace, name="chat/room", key="alice", input_base64=None, pool_name="pool",
        crash_policy=life.CrashPolicy.SLEEP,
    )  # fmt: skip
    runner = make_runner(namespace, "r")
    bob = make_actor(
        namespace, name="x", status="running", runner_id=runner.pk, generation=0, due_at=timezone.now()
    )

    def found(term: str) -> list[str]:
        return shown_actors(staff, f"{page(Actor, 'changelist')}?q={term}")[0]

    assert found(alice.pk) == [alice.pk]
    assert found(runner.pk) == [bob.pk]
    assert found("chat") == [alice.pk]
    assert found("chat/room/alice") == [alice.pk]
    assert found("chat/room/bob") == []
    assert found("nobody") == []


@pytest.mark.parametrize("status", Actor.Status.values)
def test_actors_are_shown_by_their_status(staff, namespace, status):
    make_actor(namespace, name="the asleep")
    make_destroyed_actor(namespace, name="the destroyed")
    for awake in set(Actor.Status.values) - {"asleep", "destroyed"}:
        runner_id = new_id() if awake in ("starting", "running", "stopping") else ""
        make_actor(namespace, name=f"the {awake}", status=awake, runner_id=runner_id, due_at=timezone.now())
    text = staff.get(page(Actor, "changelist"), {"status__exact": status}).content.decode()
    assert set(re.findall(r"the [a-z]+(?=</td>)", text)) == {f"the {status}"}


@pytest.mark.parametrize("column", ["actor_id", "runner_id", "connection_id", "pool_id"])
def test_the_timeline_is_searched_by_whichever_id(staff, namespace, column):
    wanted, other = new_id(), new_id()
    for pk, label in ((wanted, "the wanted one"), (other, "the other one")):
        record([Arrow(Participant.ACTOR, Participant.RUNNER, label, **{column: pk})], timezone.now())
    text = staff.get(page(TimelineEntry, "changelist"), {"q": wanted}).content.decode()
    assert "the wanted one" in text
    assert "the other one" not in text
    assert "the wanted one" not in staff.get(page(TimelineEntry, "changelist"), {"q": new_id()}).content.decode()
