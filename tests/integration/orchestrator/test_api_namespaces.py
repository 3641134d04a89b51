from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from orchestrator import namespaces
from orchestrator.errors import NamespaceNotUnique
from orchestrator.models import Namespace
from orchestrator.moments import to_ms
from tests.support.management import NOON, Management

UNKNOWN_ID = "0" * 30


def test_a_namespace_can_be_used_at_once(api):
    made = api.ok("POST", "/namespaces", {"name": "shop-1", "display_name": "Der Laden 店"})["namespace"]
    assert made.keys() == {"namespace_id", "name", "display_name", "create_ts"}
    assert (made["name"], made["display_name"]) == ("shop-1", "Der Laden 店")
    assert Management("shop-1").ok("GET", "/runners") == {"runners": [], "pagination": {"cursor": None}}


@pytest.mark.parametrize(
    ("name", "display_name", "reason"),
    [
        ("", "D", "name too short"),
        ("a" * 65, "D", "name too long"),
        ("A", "D", "invalid name"),
        ("a_b", "D", "invalid name"),
        ("-a", "D", "invalid name"),
        ("a-", "D", "invalid name"),
        ("a--b", "D", "invalid name"),
        ("ä", "D", "invalid name"),
        ("a\n", "D", "invalid name"),
        ("a", "", "display name too short"),
        ("a", "d" * 129, "display name too long"),
        ("a", "ä" * 65, "display name too long"),
        ("a", " D", "invalid display name"),
        ("a", "D ", "invalid display name"),
        ("a", "D  D", "invalid display name"),
        ("a", "D\tD", "invalid display name"),
        ("a", "D\u00a0D", "invalid display name"),
        ("a", "D\n", "invalid display name"),
    ],
)
def test_names_have_rules(api, name, display_name, reason):
    answer = api.send("POST", "/namespaces", {"name": name, "display_name": display_name})
    assert answer.refused == (400, "namespace.failed_to_create")
    assert answer.json["metadata"] == {"reason": reason}


@pytest.mark.parametrize(("name", "display_name"), [("a" * 64, "d" * 128), ("0-9-z", "ä" * 64), ("a", "a b c")])
def test_names_up_to_the_limits_are_fine(api, name, display_name):
    api.ok("POST", "/namespaces", {"name": name, "display_name": display_name})


def test_a_name_is_given_once(api):
    answer = api.send("POST", "/namespaces", {"name": "default", "display_name": "D"})
    assert answer.refused == (400, "namespace.name_not_unique")


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_wins():
    def create(_):
        try:
            namespaces.create_namespace(name="wanted", display_name="D")
        except NamespaceNotUnique:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(create, range(8))) == [False] * 7 + [True]


def _made(minutes, count=1):
    rows = [Namespace(name=f"n-{minutes}-{index}", display_name="D") for index in range(count)]
    Namespace.objects.bulk_create(rows)
    Namespace.objects.filter(pk__in=[row.pk for row in rows]).update(created_at=NOON)
    return rows


def test_every_page_goes_on_where_the_last_one_ended(api):
    expected = {"default", *(row.name for row in _made(0, count=5))}
    everything = Management(None)
    seen, cursor = [], ""
    while True:
        page = everything.ok("GET", "/namespaces", query={"limit": "2", "cursor": cursor})
        if not page["namespaces"]:
            assert page["pagination"] == {"cursor": None}
            break
        seen += [namespace["name"] for namespace in page["namespaces"]]
        cursor = page["pagination"]["cursor"]
    assert len(seen) == len(expected)
    assert set(seen) == expected


def test_a_plain_number_is_a_position_too(api, namespace):
    ms = to_ms(namespace.created_at)
    everything = Management(None)
    assert [
        row["create_ts"] for row in everything.ok("GET", "/namespaces", query={"cursor": ms - 1})["namespaces"]
    ]
    assert everything.ok("GET", "/namespaces", query={"cursor": ms})["namespaces"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ([("name", "default")], ["default"]),
        ([("name", "nobody")], []),
        ([("name", "default"), ("namespace_id", "0" * 30)], ["default"]),
        ([("namespace_id", UNKNOWN_ID)], []),
        ([("namespace_ids", f" {UNKNOWN_ID} , ID,ID ")], ["default"]),
        ([("namespace_id", "ID"), ("namespace_id", "ID")], ["default"]),
        ([("limit", "0")], []),
    ],
)
def test_namespaces_are_found_by_name_or_id(api, namespace, query, found):
    query = [(name, value.replace("ID", namespace.pk)) for name, value in query]
    page = Management(None).ok("GET", "/namespaces", query=query)
    assert [row["name"] for row in page["namespaces"]] == found


@pytest.mark.parametrize(
    "query",
    [
        [("namespace_id", "zzz")],
        [("namespace_id", "")],
        [("namespace_ids", "zzz")],
        [("name", "default"), ("namespace_ids", f"{UNKNOWN_ID},zzz")],
        [("namespace", "default")],
        [("name", "a"), ("name", "b")],
    ],
)
def test_what_cannot_be_read_is_a_bad_request(api, query):
    assert Management(None).send("GET", "/namespaces", query=query).refused == (400, "api.bad_request")
