"""Who may do what: every endpoint and every socket, asked by everybody.

What is asked is read from the tables of URLs, so that an endpoint nobody has thought about fails here.
"""

from urllib.parse import urlencode

import httpx
import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern

from gateway.routing import Destination
from orchestrator import urls
from orchestrator.access import Right, Scope
from orchestrator.asgi import application
from orchestrator.db import run_db
from orchestrator.models import AccessToken, Namespace
from orchestrator.tokens import create_token, revoke_token
from orchestrator.workflow import echo
from tests.support.management import Management, make_actor
from tests.support.scripted_runner import dial, end_of, socket_url

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN_ID = "0" * 30
ADMIN_TOKEN = "the-admins"
OPEN = "open"
OPERATIONS = {
    ("get", "/health"): OPEN,
    ("get", "/metadata"): OPEN,
    ("get", "/health/fanout"): Right.READ,
    ("get", "/datacenters"): Right.READ,
    ("get", "/namespaces"): Right.READ,
    ("post", "/namespaces"): Right.ADMIN,
    ("get", "/tokens"): Right.ADMIN,
    ("post", "/tokens"): Right.ADMIN,
    ("delete", "/tokens/{token_id}"): Right.ADMIN,
    ("get", "/actors"): Right.READ,
    ("post", "/actors"): Right.CLIENT,
    ("put", "/actors"): Right.CLIENT,
    ("get", "/actors/names"): Right.READ,
    ("delete", "/actors/{actor_id}"): Right.CLIENT,
    ("post", "/actors/{actor_id}/sleep"): Right.CLIENT,
    ("post", "/actors/{actor_id}/reschedule"): Right.CLIENT,
    ("get", "/actors/{actor_id}/kv/keys/{key}"): Right.READ,
    ("get", "/actors/{actor_id}/explain"): Right.READ,
    ("get", "/actors/{actor_id}/timeline"): Right.READ,
    ("get", "/runners"): Right.READ,
    ("get", "/runners/names"): Right.READ,
    ("get", "/envoys"): Right.READ,
    ("get", "/runner-configs"): Right.RUNNER,
    ("put", "/runner-configs/{runner_name}"): Right.RUNNER,
    ("delete", "/runner-configs/{runner_name}"): Right.RUNNER,
    ("post", "/runner-configs/{runner_name}/refresh-metadata"): Right.RUNNER,
    ("post", "/runner-configs/serverless-health-check"): Right.RUNNER,
}
NOT_NAMESPACED = {"/health/fanout", "/datacenters", "/namespaces"}  # open to the tokens of every namespace
SOCKETS = {Destination.ACTOR: Right.CLIENT, Destination.RUNNER: Right.RUNNER}
PAGES = {"/": OPEN, "/openapi.json": OPEN, "/docs": OPEN, "/ready": OPEN, "/metrics": Right.ADMIN}
CALLERS = {
    "nobody": (),
    "wrong": (),
    "another namespace": (),
    "read": (Right.READ,),
    "client": (Right.READ, Right.CLIENT),
    "runner": (Right.READ, Right.RUNNER),
    "admin": tuple(Right),
}


@pytest.fixture
def secrets(env, namespace):
    """What everybody shows; the engine asks for it."""
    env(admin_token=ADMIN_TOKEN, gateway_ready_ms=100)
    other = Namespace.objects.create(name="other", display_name="Other")
    made = {scope.value: create_token(namespace=namespace, label="", scopes=[scope])[1] for scope in Scope}
    _, foreign = create_token(namespace=other, label="", scopes=list(Scope))
    return made | {
        "nobody": None,
        "wrong": f"{made['client']}x",
        "another namespace": foreign,
        "admin": ADMIN_TOKEN,
    }


def _schema():
    return Management(None).ok("GET", "/openapi.json")["paths"]


def test_every_endpoint_has_a_rule(db):
    assert {(method, path) for path, methods in _schema().items() for method in methods} == set(OPERATIONS)


def test_every_page_has_a_rule():
    patterns = [pattern for pattern in urls.urlpatterns if isinstance(pattern, URLPattern)]
    pages = {f"/{pattern.pattern}" for pattern in patterns}
    [ninja] = [pattern for pattern in urls.urlpatterns if getattr(pattern, "namespace", "") == "api"]
    documented = {path.lstrip("/") for _, path in OPERATIONS}
    pages |= {f"/{pattern.pattern}" for pattern in ninja.url_patterns if _plain(pattern) not in documented}
    assert pages - {"/"} == set(PAGES) - {"/"}
    groups = [pattern for pattern in urls.urlpatterns if not isinstance(pattern, URLPattern)]
    assert len(groups) == 3  # the admin and the console, which ask for a login, and the API


def _plain(pattern):
    return str(pattern.pattern).replace("<", "{").replace(">", "}")


def test_every_destination_of_the_router_has_a_rule():
    assert set(Destination) == {*SOCKETS, Destination.API}


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
def test_an_endpoint_is_open_to_those_with_the_right(secrets, redis_url, monkeypatch, method, path):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0)  # no worker runs
    asked = OPERATIONS[method, path]
    filled = (
        path.replace("{actor_id}", UNKNOWN_ID).replace("{token_id}", UNKNOWN_ID).replace("{runner_name}", "pool")
    )
    namespace = None if path in NOT_NAMESPACED or asked is OPEN else "default"
    for caller, rights in CALLERS.items():
        if caller == "another namespace" and path in NOT_NAMESPACED:
            rights = CALLERS["read"]
        token = secrets[caller]
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = Management(namespace).send(method.upper(), filled, raw=b"[", headers=headers)
        refused = answer.status == 403 and answer.code == "api.forbidden"
        assert refused is not (asked is OPEN or asked in rights), (caller, answer)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_open_to_those_with_the_right(secrets, redis_url, monkeypatch, path):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0)  # no worker runs
    for caller, rights in CALLERS.items():
        headers = {} if secrets[caller] is None else {"authorization": f"Bearer {secrets[caller]}"}
        answer = Client().get(path, headers=headers)
        assert (answer.status_code == 403) is not (PAGES[path] is OPEN or PAGES[path] in rights), caller


@pytest.fixture
async def actor(namespace):
    """An actor that nobody wakes."""
    return await run_db(make_actor, namespace, key="k")


REQUESTS = ["path", "header", "target", "query"]
HANDSHAKES = ["path", "header", "subprotocol", "target", "query"]


@pytest.mark.parametrize("form", REQUESTS)
async def test_an_actor_is_open_to_those_who_may_call_it(engine_url, secrets, actor, form):
    async with httpx.AsyncClient(base_url=engine_url) as client:
        for caller, rights in CALLERS.items():
            answer = await client.get(**_call(form, actor.pk, secrets[caller]))
            told = f"{answer.json()['group']}.{answer.json()['code']}"
            assert (answer.status_code, told) == _expected(form, caller, rights), (caller, told)
            assert str(secrets[caller]) not in answer.text


@pytest.mark.parametrize("form", HANDSHAKES)
async def test_an_actors_websocket_is_open_to_those_who_may_call_it(engine_url, secrets, actor, form):
    for caller, rights in CALLERS.items():
        path, offers, headers = _handshake(form, actor.pk, secrets[caller])
        async with dial(f"{engine_url.replace('http', 'ws', 1)}{path}", offers, headers) as socket:
            assert await end_of(socket) == (1011, _expected(form, caller, rights)[1]), caller
            assert socket.subprotocol == "rivet"


def _expected(form, caller, rights):
    """Return what a caller hears: one who is let in waits in vain, as no worker runs."""
    if SOCKETS[Destination.ACTOR] in rights:
        return 503, "guard.actor_ready_timeout"
    if caller == "another namespace" and form != "query":
        return 404, "actor.not_found"  # it may call actors, but there are none of this id for it
    return 403, "api.forbidden"


def _call(form, actor_id, token):
    header = {} if token is None else {"x-rivet-token": token}
    match form:
        case "path":
            return {"url": f"/gateway/{actor_id}" + ("" if token is None else f"@{token}") + "/x"}
        case "header":
            return {"url": f"/gateway/{actor_id}/x", "headers": header}
        case "query":
            return {"url": _query_path(token)}
        case _:
            return {
                "url": "/request/x",
                "headers": {"x-rivet-target": "actor", "x-rivet-actor": actor_id} | header,
            }


def _handshake(form, actor_id, token):
    offer = [] if token is None else [f"rivet_token.{token}"]
    match form:
        case "subprotocol":
            return f"/gateway/{actor_id}/x", ["rivet", *offer], {}
        case "target":
            return "/x", ["rivet", "rivet_target.actor", f"rivet_actor.{actor_id}", *offer], {}
        case _:
            call = _call(form, actor_id, token)
            return call["url"], ["rivet"], call.get("headers", {})


def _query_path(token, **more):
    asked = {"rvt-namespace": "default", "rvt-method": "get", "rvt-key": "k"} | more
    return f"/gateway/counter/x?{urlencode(asked if token is None else asked | {'rvt-token': token})}"


async def test_nothing_is_made_for_those_who_may_not_call_it(engine_url, secrets, namespace):
    making = {"rvt-method": "getOrCreate", "rvt-pool": "pool"}
    async with httpx.AsyncClient(base_url=engine_url) as client:
        for caller, rights in CALLERS.items():
            answer = await client.get(_query_path(secrets[caller], **making))
            let_in = answer.json()["code"] == "no_runner_config_configured"
            assert let_in is (SOCKETS[Destination.ACTOR] in rights), (caller, answer.text)
            assert let_in or answer.status_code == 403


async def test_an_actor_that_does_not_exist_is_nobodys_secret(engine_url, secrets):
    async with httpx.AsyncClient(base_url=engine_url) as client:
        for actor_id in (UNKNOWN_ID, "unreadable"):
            for caller, status in [("nobody", 403), ("read", 403), ("client", 404), ("another namespace", 404)]:
                answer = await client.get(**_call("header", actor_id, secrets[caller]))
                assert answer.status_code == status, (caller, answer.text)


async def test_a_preflight_needs_no_token(engine_url, secrets):
    async with httpx.AsyncClient(base_url=engine_url) as client:
        assert (await client.options(f"/gateway/{UNKNOWN_ID}/x")).status_code == 204


async def test_a_websocket_for_the_staff_is_open_to_nobody_with_a_token(engine_url, secrets):
    assert set(application._sockets) == {"/console/updates"}
    for caller in CALLERS:
        offers = ["rivet"] if secrets[caller] is None else ["rivet", f"rivet_token.{secrets[caller]}"]
        address = f"{engine_url.replace('http', 'ws', 1)}/console/updates?kind=overview"
        async with dial(address, offers, {"origin": engine_url}) as socket:
            await socket.wait_closed()
            assert socket.close_code == 4403, caller


async def test_a_runner_comes_in_with_the_right(engine_url, secrets, host):
    for caller, rights in CALLERS.items():
        offers = ["rivet"] if secrets[caller] is None else ["rivet", f"rivet_token.{secrets[caller]}"]
        if SOCKETS[Destination.RUNNER] in rights:
            assert (await host(offers=offers, key=caller)).runner_id
            continue
        async with dial(socket_url(engine_url), offers) as socket:
            reason = "guard.missing_header" if caller == "nobody" else "api.forbidden"
            assert await end_of(socket) == (1011, reason), caller


async def test_a_runner_whose_token_is_revoked_is_sent_away(engine_url, secrets, env, host):
    env(admin_token=ADMIN_TOKEN, runner_ping_interval_ms=50)
    runner = await host(offers=["rivet", f"rivet_token.{secrets['runner']}"])
    [row] = [row for row in await run_db(lambda: list(AccessToken.objects.all())) if row.scopes == ["runner"]]
    await run_db(revoke_token, row)
    assert await runner.has_closed() == (1011, "api.forbidden")


class TestAdmin:
    @staticmethod
    def _paths():
        found = []
        for pattern in admin.site.urls[0]:
            inner = getattr(pattern, "url_patterns", [pattern])
            prefix = "/admin/" + (str(pattern.pattern) if inner != [pattern] else "")
            found += [prefix + str(one.pattern).replace("<path:object_id>", "1") for one in inner]
        return sorted({path for path in found if "<" not in path and "(?P" not in path and "^" not in path})

    def test_every_page_asks_for_the_login_of_a_member_of_the_staff(self, db):
        user = get_user_model().objects.create_user("user", password="secret")
        guest, no_staff = Client(), Client()
        no_staff.force_login(user)
        paths = [path for path in self._paths() if path not in ("/admin/login/", "/admin/logout/")]
        assert len(paths) > 30
        for path in paths:
            for client in (guest, no_staff):
                answer = client.get(path)
                assert answer.status_code in (301, 302), path
                assert "/admin/login/" in answer.headers["location"] or answer.status_code == 301, path

    def test_forms_need_their_own_token_and_pages_are_not_framed(self, db):
        user = get_user_model().objects.create_superuser("root", password="secret")
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        page = client.get("/admin/")
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert client.post("/admin/auth/user/add/", {"username": "x"}).status_code == 403
        assert Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x"}).status_code == 403
