"""Tokens over the API, what is remembered of them, and where an engine without one may listen."""

import asyncio
import logging
from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from orchestrator import access, doorkeeper, tokens
from orchestrator.access import Right
from orchestrator.db import run_db
from orchestrator.errors import Forbidden
from orchestrator.models import AccessToken, Namespace
from tests.support.management import Management
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

ADMIN_TOKEN = "the admin's"
BEARER = {"authorization": f"Bearer {ADMIN_TOKEN}"}
BAD_REQUEST = (400, "api.bad_request")


@pytest.fixture
def closed(env):
    """An engine that asks for a token."""
    env(admin_token=ADMIN_TOKEN)


def _make(api, **body):
    answer = api.ok("POST", "/tokens", {"name": "ci", "scopes": ["client"]} | body, headers=BEARER)
    return answer["token"], answer["secret"]


def _status(api, secret, method="GET", path="/actors/names", **options):
    return api.send(method, path, headers={"authorization": f"Bearer {secret}"}, **options).status


class TestApi:
    def test_a_new_token_is_shown_once_and_stored_hashed(self, api, closed, namespace):
        shown, secret = _make(api, scopes=["runner", "client", "runner"], expires_in=60)
        assert shown["scopes"] == ["client", "runner"]
        assert (shown["name"], shown["namespace_id"], shown["revoke_ts"]) == ("ci", namespace.pk, None)
        assert abs(shown["expire_ts"] - shown["create_ts"] - 60_000) < 1_000
        row = AccessToken.objects.get(pk=shown["token_id"])
        assert secret not in str(row.__dict__)
        [listed] = api.ok("GET", "/tokens", headers=BEARER)["tokens"]
        assert listed == shown

    def test_it_opens_its_namespace_until_it_is_revoked(self, api, closed):
        shown, secret = _make(api)
        assert _status(api, secret) == 200
        for _ in range(2):
            assert api.ok("DELETE", f"/tokens/{shown['token_id']}", headers=BEARER) == {}
        assert _status(api, secret) == 403
        [listed] = api.ok("GET", "/tokens", headers=BEARER)["tokens"]
        assert listed["revoke_ts"] is not None

    def test_it_expires(self, api, closed):
        shown, secret = _make(api, expires_in=60)
        AccessToken.objects.filter(pk=shown["token_id"]).update(expires_at=timezone.now())
        assert _status(api, secret) == 403

    @pytest.mark.parametrize(
        "body",
        [
            {"scopes": []},
            {"scopes": ["admin"]},
            {"scopes": ["read", 1]},
            {"scopes": "read"},
            {"name": "x" * 101},
            {"name": None},
            {"expires_in": 0},
            {"expires_in": 10**12},
            {"surplus": 1},
        ],
    )
    def test_what_cannot_be_a_token_is_a_bad_request(self, api, body):
        answer = api.send("POST", "/tokens", {"name": "ci", "scopes": ["read"]} | body)
        assert answer.refused == BAD_REQUEST
        assert not AccessToken.objects.exists()

    def test_tokens_of_another_namespace_are_not_there(self, api):
        Namespace.objects.create(name="other", display_name="Other")
        shown, _ = _make(api)
        other = Management("other")
        assert other.ok("GET", "/tokens")["tokens"] == []
        assert other.send("DELETE", f"/tokens/{shown['token_id']}").refused == (400, "token.not_found")

    def test_a_list_has_pages(self, api):
        made = [_make(api)[0]["token_id"] for _ in range(3)]
        first = api.ok("GET", "/tokens", query={"limit": 2})
        second = api.ok("GET", "/tokens", query={"cursor": first["pagination"]["cursor"]})
        assert [token["token_id"] for token in first["tokens"] + second["tokens"]] == made[::-1]

    def test_a_namespaces_token_sees_that_namespace_alone(self, api, closed, namespace):
        other = Namespace.objects.create(name="other", display_name="Other")
        _, secret = _make(api, scopes=["read"])
        bearer = {"authorization": f"Bearer {secret}"}
        everybody = Management(None)

        def seen(**query):
            return [
                one["name"]
                for one in everybody.ok("GET", "/namespaces", query=query, headers=bearer)["namespaces"]
            ]

        assert seen() == seen(name="default") == seen(namespace_id=namespace.pk) == ["default"]
        assert seen(name="other") == seen(namespace_ids=other.pk) == []

    def test_an_engine_that_asks_for_tokens_may_have_no_admin(self, api, env, namespace):
        env(auth="required")
        _, secret = tokens.create_token(namespace=namespace, label="", scopes=["read"])
        assert _status(api, secret) == 200
        assert api.send("GET", "/tokens").refused == (403, "api.forbidden")
        assert _status(api, "") == 403


class TestMemory:
    @pytest.fixture
    async def secret(self, closed, namespace):
        _, secret = await run_db(tokens.create_token, namespace=namespace, label="", scopes=["client"])
        return secret

    @pytest.fixture
    async def forget(self):
        yield
        await _end()

    async def test_a_token_is_asked_for_once(self, secret, forget, monkeypatch):
        asked = _count_lookups(monkeypatch)
        await asyncio.gather(*(doorkeeper.authorise(Right.CLIENT, "default", secret) for _ in range(20)))
        await _listening()
        await doorkeeper.authorise(Right.CLIENT, "default", secret)
        before = len(asked)
        for _ in range(20):
            await doorkeeper.authorise(Right.CLIENT, "default", secret)
            with pytest.raises(Forbidden):
                await doorkeeper.authorise(Right.RUNNER, "default", secret)
        assert before <= 2
        assert len(asked) == before

    async def test_a_revoked_token_is_forgotten_at_once(self, secret, forget):
        await doorkeeper.authorise(Right.CLIENT, None, secret)
        await _listening()
        await doorkeeper.authorise(Right.CLIENT, None, secret)
        await run_db(lambda: tokens.revoke_token(AccessToken.objects.get()))
        await eventually(lambda: _is_refused(secret))

    async def test_a_message_that_is_lost_costs_some_seconds(self, secret, forget, monkeypatch):
        monkeypatch.setattr(doorkeeper, "FRESH_SECONDS", 0)
        await doorkeeper.authorise(Right.CLIENT, None, secret)
        await run_db(AccessToken.objects.update, revoked_at=timezone.now())
        assert await _is_refused(secret)

    async def test_while_the_database_is_away_a_known_token_is_believed(self, secret, forget, monkeypatch):
        await doorkeeper.authorise(Right.CLIENT, None, secret)
        await _listening()
        await doorkeeper.authorise(Right.CLIENT, None, secret)
        monkeypatch.setattr(doorkeeper, "FRESH_SECONDS", 0)

        def away(token):
            raise OperationalError

        monkeypatch.setattr(tokens, "find_bearer", away)
        await doorkeeper.authorise(Right.CLIENT, None, secret)
        with pytest.raises(OperationalError):
            await doorkeeper.authorise(Right.CLIENT, None, "another")
        monkeypatch.setattr(doorkeeper, "STALE_SECONDS", 0)
        with pytest.raises(OperationalError):
            await doorkeeper.authorise(Right.CLIENT, None, secret)

    async def test_it_does_not_grow_without_bound(self, closed, namespace, forget, monkeypatch):
        monkeypatch.setattr(doorkeeper, "CAPACITY", 3)
        for guess in range(10):
            assert await _is_refused(access.SECRET_PREFIX + str(guess) * 43)
        assert len(doorkeeper._doorkeeper()._known) <= 3


def test_what_cannot_be_a_token_is_refused_without_a_question(closed, namespace, django_assert_num_queries):
    _, secret = tokens.create_token(namespace=namespace, label="", scopes=["read"])
    with django_assert_num_queries(1):
        assert tokens.find_bearer(secret) is not None
    with django_assert_num_queries(0):
        for guess in ("", "guess", secret[:-1], secret + "x", "x" * len(secret), "ticket.x.y.z"):
            assert tokens.find_bearer(guess) is None


class TestTickets:
    def test_a_runner_we_start_gets_a_ticket_for_its_namespace(self, closed, namespace):
        ticket = tokens.ticket(namespace_id=namespace.pk, namespace="default", lifespan=timedelta(minutes=1))
        for right in (Right.RUNNER, Right.CLIENT, Right.READ):
            tokens.authorise(right, "default", ticket)
        for right, where in [(Right.ADMIN, "default"), (Right.RUNNER, "other")]:
            with pytest.raises(Forbidden):
                tokens.authorise(right, where, ticket)

    def test_none_is_needed_where_nothing_is_asked_for(self, namespace):
        assert tokens.ticket(namespace_id=namespace.pk, namespace="default", lifespan=timedelta()) == ""

    def test_none_is_signed_with_a_key_that_nobody_else_has(self, closed, namespace, settings):
        settings.SECRET_KEY_LASTS = False
        with pytest.raises(ImproperlyConfigured, match="TORPOR_SECRET_KEY"):
            tokens.ticket(namespace_id=namespace.pk, namespace="default", lifespan=timedelta())


class TestListening:
    @pytest.mark.parametrize("command", ["serve", "up"])
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "engine.example"])
    def test_without_a_token_an_engine_stays_on_its_machine(self, command, host):
        with pytest.raises(CommandError, match="set TORPOR_ADMIN_TOKEN"):
            call_command(command, host=host)

    def test_with_tokens_a_web_process_needs_a_key_that_others_have_too(self, closed, settings):
        settings.SECRET_KEY_LASTS = False
        with pytest.raises(CommandError, match="TORPOR_SECRET_KEY"):
            call_command("serve", host="0.0.0.0")

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
    def test_on_loopback_it_needs_none(self, host, settings):
        assert settings.ENV.exposure(host) is None

    def test_with_a_token_it_may_listen_anywhere(self, closed, settings):
        assert settings.ENV.exposure("0.0.0.0") is None


def test_a_token_is_never_logged(api, closed, caplog):
    caplog.set_level(logging.DEBUG)
    _, secret = _make(api)
    for headers in ({"authorization": f"Bearer {secret}"}, {"authorization": f"Bearer wrong{secret}"}):
        answer = api.send("GET", "/actors/names", headers=headers)
        assert secret not in answer.body.decode()
    assert secret not in caplog.text
    assert ADMIN_TOKEN not in caplog.text


def _count_lookups(monkeypatch):
    asked, find = [], tokens.find_bearer

    def counted(token):
        asked.append(token)
        return find(token)

    monkeypatch.setattr(tokens, "find_bearer", counted)
    return asked


async def _is_refused(secret):
    try:
        await doorkeeper.authorise(Right.CLIENT, None, secret)
    except Forbidden:
        return True
    return False


async def _listening():
    """Wait until what is made or revoked is heard of."""
    await doorkeeper._doorkeeper()._listening


async def _end():
    from orchestrator.bus import close_bus

    await close_bus()
    if (listening := doorkeeper._doorkeeper()._listening) is not None:
        await listening
