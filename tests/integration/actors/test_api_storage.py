"""`GET /actors/{actor_id}/kv/keys/{key}` (API §3.7)."""

import time
from urllib.parse import quote

import pytest

from actors.models import Actor
from orchestrator.models import Namespace
from runners.protocol.messages import KvPutRequest
from tests.support.management import Management, signals
from tests.support.storage import Hosted

pytestmark = pytest.mark.django_db(transaction=True)

KEY, ENCODED = b"\xfb\xff\xfe/k", "+//+L2s="
NOT_FOUND = (400, "actor.kv_key_not_found")


@pytest.fixture
def hosted(namespace):
    hosted = Hosted(namespace)
    hosted.ask(KvPutRequest([KEY, b"empty"], [b"\x00value", b""]))
    return hosted


def get(api, actor_id, key):
    return api.send_encoded("GET", f"/actors/{actor_id}/kv/keys/{quote(key, safe='')}")


def test_a_value_is_read_in_base64_with_the_time_of_its_put(api, hosted):
    answer = get(api, hosted.actor.pk, ENCODED)
    assert answer.status == 200
    told = answer.json
    assert time.time() * 1000 - 60_000 < told.pop("update_ts") <= time.time() * 1000
    assert told == {"value": "AHZhbHVl"}
    assert get(api, hosted.actor.pk, "ZW1wdHk=").json["value"] == ""


def test_a_sleeping_actor_is_not_woken(api, hosted):
    Actor.objects.update(status="asleep", runner_id="")
    assert get(api, hosted.actor.pk, ENCODED).status == 200
    assert signals("actors", hosted.actor.pk) == []


@pytest.mark.parametrize("key", ["-__-L2s=", "+//+L2s", "-__-L2s"])
def test_the_alphabet_for_urls_and_a_lack_of_padding_are_taken(api, hosted, key):
    assert get(api, hosted.actor.pk, key).json["value"] == "AHZhbHVl"


@pytest.mark.parametrize("key", ["!", "a", "a b=", "ä", "aw=a", "a%"])
def test_what_is_no_base64_is_refused(api, hosted, key):
    answer = get(api, hosted.actor.pk, key)
    assert answer.refused == (400, "api.bad_request")
    assert answer.json["metadata"] == {"reason": "key is not base64"}


def test_an_absent_key_and_a_destroyed_actor_have_no_value(api, hosted):
    assert get(api, hosted.actor.pk, "bm9uZQ==").refused == NOT_FOUND
    Actor.objects.update(status="destroyed", runner_id="", destroyed_at="2026-01-01T00:00Z")
    assert get(api, hosted.actor.pk, ENCODED).refused == NOT_FOUND


def test_an_actor_that_is_not_there_or_in_another_namespace_is_not_found(api, hosted):
    Namespace.objects.create(name="elsewhere", display_name="Elsewhere")
    for client, actor_id in [(api, "0" * 30), (Management("elsewhere"), hosted.actor.pk)]:
        assert get(client, actor_id, ENCODED).refused == (400, "actor.not_found")
        assert get(client, actor_id, "!").refused == (400, "actor.not_found")
    assert get(Management("nowhere"), "0" * 30, "!").refused == (400, "actor.not_found")
    assert get(Management("nowhere"), hosted.actor.pk, "!").refused == (400, "namespace.not_found")
