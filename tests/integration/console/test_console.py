"""The console: who may see it, what it shows, and that it shows what changes without being asked."""

import asyncio
import json

import pytest
import websockets
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from actors import life
from actors.models import Actor
from console import watcher
from orchestrator.db import run_db
from tests.support.live import wake
from tests.support.management import make_actor, make_pool, make_runner
from tests.support.turns import post, settle
from tests.support.web import SOON_S, eventually

pytestmark = pytest.mark.django_db(transaction=True)


def logged_in(*, staff: bool = True, root: bool = True, permissions: tuple[str, ...] = ()) -> Client:
    user = get_user_model().objects.create_user("someone", password="x", is_staff=staff, is_superuser=root)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def test_the_first_page_tells_of_pools_actors_and_failures(namespace):
    now = timezone.now()
    make_pool(namespace, name="cosy-pool")
    make_runner(namespace, "r", name="cosy-pool", socket_id="s", last_ping_at=now, due_at=now)
    actor = make_actor(namespace, pool_name="cosy-pool")
    post(actor, life.Wake("GET /"))
    settle()
    shown = logged_in().get("/console/").content.decode()
    assert "cosy-pool" in shown
    assert '<dd data-count="starting">1</dd>' in shown
    assert 'data-kind="overview"' in shown


def test_the_first_page_costs_the_same_however_many_actors_and_pools_there_are(namespace):
    client = logged_in()

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/console/").status_code == 200
        return len(queries)

    def fill(label: str, count: int) -> None:
        for n in range(count):
            make_pool(namespace, name=f"{label}{n}")
            make_actor(namespace, name=f"{label}{n}", pool_name=f"{label}{n}")

    fill("few", 2)
    few = cost()
    fill("many", 20)
    assert cost() == few <= 12


def test_an_actors_and_a_runners_page_tell_of_them(namespace):
    client = logged_in()
    runner = make_runner(namespace, "key-of-the-runner")
    actor = make_actor(
        namespace, name="<b>", status="running", runner_id=runner.pk, generation=4, due_at=timezone.now()
    )
    shown = client.get(reverse("console:actor", args=[actor.pk])).content.decode()
    assert "&lt;b&gt;" in shown
    assert '<svg class="sequence"' in shown
    assert reverse("console:runner", args=[runner.pk]) in shown
    shown = client.get(reverse("console:runner", args=[runner.pk])).content.decode()
    assert "key-of-the-runner" in shown
    assert reverse("console:actor", args=[actor.pk]) in shown


def test_what_is_not_there_is_not_found(db):
    client = logged_in()
    assert client.get(reverse("console:actor", args=["nobody"])).status_code == 404
    assert client.get(reverse("console:runner", args=["nobody"])).status_code == 404


def test_something_is_found_by_its_id_or_its_name_and_key(namespace):
    client = logged_in()
    actor, runner = make_actor(namespace, name="a/b", key="c"), make_runner(namespace, "r")
    for term, where in ((actor.pk, "actor"), ("a/b/c", "actor"), (runner.pk, "runner")):
        answer = client.get("/console/", {"find": term})
        assert answer["location"] == reverse(
            f"console:{where}", args=[actor.pk if where == "actor" else runner.pk]
        )
    assert "Nothing is called a/b/d" in client.get("/console/", {"find": "a/b/d"}).content.decode()


def test_the_console_is_for_staff_who_may_see_actors_and_runners(db):
    assert Client().get("/console/").status_code == 302
    stranger = logged_in(staff=False, root=False)
    assert stranger.get("/console/").status_code == 302
    get_user_model().objects.all().delete()
    clerk = logged_in(root=False, permissions=("view_actor",))
    assert clerk.get("/console/").status_code == 403
    get_user_model().objects.all().delete()
    clerk = logged_in(root=False, permissions=("view_actor", "view_runner"))
    assert clerk.get("/console/").status_code == 200


# Live


def updates(url: str, client: Client, kind: str, pk: str = "", origin: str | None = None):
    cookie = f"sessionid={client.cookies['sessionid'].value}" if "sessionid" in client.cookies else ""
    address = f"{url.replace('http', 'ws', 1)}/console/updates?kind={kind}&id={pk}"
    return websockets.connect(address, origin=origin or url, additional_headers={"cookie": cookie})


async def until_shown(socket, piece: str, text: str) -> str:
    async with asyncio.timeout(SOON_S):
        while True:
            pieces = json.loads(await socket.recv())["pieces"]
            if text in pieces.get(piece, ""):
                return pieces[piece]


async def test_a_wake_is_shown_to_all_who_watch_without_being_asked(engine_url, host, namespace, worker):
    client = await run_db(logged_in)
    await host()
    actor = await run_db(make_actor, namespace)
    async with (
        updates(engine_url, client, "overview") as one,
        updates(engine_url, client, "overview") as other,
        updates(engine_url, client, "actor", actor.pk) as page,
    ):
        await until_shown(one, "actors", '<dd data-count="running">0</dd>')
        await until_shown(page, "actor_facts", "asleep")
        await wake(actor.pk)
        for socket in (one, other):
            await until_shown(socket, "actors", '<dd data-count="running">1</dd>')
        assert "StartActor" in await until_shown(page, "actor_picture", "StartActor")
        assert {key[1] for key in watcher._watches} == {("overview", ""), ("actor", actor.pk)}
    await eventually(lambda: not watcher._watches)
    assert await run_db(Actor.objects.filter(status="running").count) == 1


@pytest.mark.parametrize(
    ("kind", "who", "origin", "code"),
    [
        ("overview", "stranger", None, 4403),
        ("overview", "nobody", None, 4403),
        ("overview", "root", "http://evil.example", 4403),
        ("nothing", "root", None, 4404),
    ],
)
async def test_updates_are_refused(engine_url, kind, who, origin, code):
    client = (
        Client() if who == "nobody" else await run_db(lambda: logged_in(staff=who == "root", root=who == "root"))
    )
    async with updates(engine_url, client, kind, origin=origin) as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == code
    assert not watcher._watches


class Changing:
    """A page one piece of which is another at every look."""

    def __init__(self) -> None:
        self.looks = 0

    def render(self) -> dict[str, str]:
        self.looks += 1
        return {"same": "same", "looks": str(self.looks)}


async def test_only_what_has_changed_is_sent_but_to_newcomers(monkeypatch):
    monkeypatch.setattr(watcher, "PAUSE_SECONDS", 0.05)
    watch = watcher.Watch(Changing())
    first, second = watcher.Viewer(), watcher.Viewer()
    watch.join(first)
    assert set(json.loads(await first.next())["pieces"]) == {"same", "looks"}
    assert set(json.loads(await first.next())["pieces"]) == {"looks"}
    watch.join(second)
    assert set(json.loads(await second.next())["pieces"]) == {"same", "looks"}
    watch.task.cancel()


def test_what_cannot_be_in_a_name_is_looked_for_without_harm(namespace):
    actor = make_actor(namespace)
    client = logged_in()
    answer = client.get("/console/", {"find": f"\0{actor.pk}"})
    assert answer.headers["location"] == reverse("console:actor", args=[actor.pk])
    assert client.get("/console/", {"find": "\0"}).status_code == 200
