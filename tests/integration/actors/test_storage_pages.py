"""Staff look at an actor's key-value storage: keys in order, page by page, and values; nobody changes anything."""

import re
from html import unescape

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from actors.models import ActorStorage
from actors.storage_browser import PAGE
from runners.protocol.messages import KvPutRequest
from tests.support.storage import Hosted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hosted(namespace) -> Hosted:
    return Hosted(namespace)


def clerk_with(*permissions: str) -> Client:
    user = get_user_model().objects.create_user("clerk", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def staff(db) -> Client:
    return clerk_with("view_actor", "view_storedentry")


def url(hosted: Hosted) -> str:
    return reverse("admin:actors_actor_storage", args=[hosted.actor.pk])


def put(hosted: Hosted, entries: dict[bytes, bytes]) -> None:
    hosted.ask(KvPutRequest(list(entries), list(entries.values())))


def keys_of(answer) -> list[str]:
    return [
        unescape(key) for key in re.findall(r'<td><a href="[^"]*key=[^"]*">([^<]*)</a>', answer.content.decode())
    ]


def test_keys_are_shown_in_order_and_lead_to_their_values(staff, hosted):
    put(hosted, {b"b<": b'{"a": [1, "\xc3\xa9"]}', b"a": b"plain\n", b"\xff\\": b"\x00\x01", b"": b""})
    answer = staff.get(url(hosted))
    assert keys_of(answer) == ["the empty key", "a", "b<", r"\xff\\"]
    pages = [
        staff.get(f"{url(hosted)}?{unescape(query)}").content.decode()
        for query in re.findall(r'href="[^"]*\?(key=[^"]*)"', answer.content.decode())
    ]
    seen = [re.search(r"shown as (\w+).*?<pre[^>]*>(.*?)</pre>", page, re.DOTALL).groups() for page in pages]
    assert [kind for kind, _ in seen] == ["text", "text", "JSON", "bytes"]
    assert seen[1][1] == "plain\n"
    assert unescape(seen[2][1]) == '{\n  "a": [\n    1,\n    "é"\n  ]\n}'
    assert seen[3][1].startswith("000000  00 01 ")


def test_many_keys_are_shown_page_by_page(staff, hosted):
    wanted = [f"p{n:03}" for n in range(PAGE + 2)]
    put(hosted, {key.encode(): b"x" for key in ("a", *wanted, "q")})
    answer = staff.get(url(hosted), {"prefix": "p"})
    assert keys_of(answer) == wanted[:PAGE]
    [onward] = re.findall(r'href="([^"]*from=[^"]*)"', answer.content.decode())
    answer = staff.get(unescape(onward))
    assert keys_of(answer) == wanted[PAGE:]
    assert "Next" not in answer.content.decode()


def test_a_prefix_may_be_bytes(staff, hosted):
    put(hosted, {b"\x00\x01a": b"x", b"\x00\x02a": b"x", b"x": b"x"})
    assert keys_of(staff.get(url(hosted), {"prefix": r"\x00\x01"})) == [r"\x00\x01a"]


def test_a_value_is_downloaded_as_it_is_and_never_shown_as_a_page(staff, hosted):
    put(hosted, {b"k": b"<script>"})
    answer = staff.get(url(hosted), {"key": b"k".hex(), "raw": "1"})
    assert answer.content == b"<script>"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert "<script>" not in staff.get(url(hosted), {"key": b"k".hex()}).content.decode().split("<pre")[1]


@pytest.mark.parametrize("query", [{"key": "zz"}, {"key": b"other".hex()}, {"from": "z"}])
def test_what_is_not_there_is_not_found(staff, hosted, query):
    assert staff.get(url(hosted), query).status_code == 404


def test_of_a_destroyed_actor_nothing_is_shown(staff, hosted):
    hosted.put(k="v")
    ActorStorage.objects.update(erase_at="2026-01-01T00:00:00Z")
    assert keys_of(staff.get(url(hosted))) == []
    assert staff.get(url(hosted), {"key": b"k".hex()}).status_code == 404


def test_who_may_see_actors_may_not_therefore_see_what_they_store(hosted):
    hosted.put(k="v")
    clerk = clerk_with("view_actor")
    assert clerk.get(url(hosted)).status_code == 403
    assert clerk.get(url(hosted), {"key": b"k".hex()}).status_code == 403


def test_nothing_is_taken_from_anybody(staff, hosted):
    assert staff.post(url(hosted), {"key": b"k".hex()}).status_code == 405
