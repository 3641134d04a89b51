"""Pools over HTTP (API §6)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections

from orchestrator.models import Namespace
from runners.models import RunnerConfig
from tests.support.management import Management, make_pool, signals
from tests.support.processes import free_port

pytestmark = pytest.mark.django_db(transaction=True)

NORMAL = {"normal": {}}
BAD_REQUEST = (400, "api.bad_request")


@pytest.fixture
def dead():
    """The URL of an endpoint that is not there."""
    return f"http://127.0.0.1:{free_port()}/"


def _serverless(at="http://a", **fields):
    return {"serverless": {"url": at, "request_lifespan": 60} | fields}


def _put(api, config, name="pool"):
    return api.ok("PUT", f"/runner-configs/{name}", {"datacenters": {"default": config}})[
        "endpoint_config_changed"
    ]


def _refused(api, config):
    answer = api.send("PUT", "/runner-configs/pool", {"datacenters": {"default": config}})
    assert answer.status == 400, answer.body
    return answer


def _read(api, name="pool"):
    found = api.ok("GET", "/runner-configs", query={"runner_name": name})["runner_configs"]
    return found[name]["datacenters"]["default"] if found else None


class TestPut:
    def test_a_normal_pool_is_shown_with_every_field(self, api):
        _put(api, NORMAL)
        evictions = dict.fromkeys(("actor_eviction_delay", "actor_eviction_period", "actor_eviction_rate"))
        shown = {"normal": {"drain_on_version_upgrade": True} | evictions, "protocol_version": None}
        assert _read(api) == shown

    def test_a_serverless_pool_is_shown_with_every_default(self, api, dead):
        _put(api, _serverless(dead))
        evictions = dict.fromkeys(("actor_eviction_delay", "actor_eviction_period", "actor_eviction_rate"))
        assert _read(api) == {
            "serverless": {
                "url": dead,
                "headers": {},
                "request_lifespan": 60,
                "drain_grace_period": 10,
                "slots_per_runner": 1,
                "min_runners": 0,
                "max_runners": 1000,
                "runners_margin": 0,
                "max_concurrent_actors": 1000,
                "drain_on_version_upgrade": True,
            }
            | evictions,
            "protocol_version": None,
        }

    def test_what_is_given_is_shown_again(self, api, dead):
        given = {
            "headers": {"x-a": "b"},
            "request_lifespan": 900,
            "drain_grace_period": 600,
            "slots_per_runner": 5,
            "min_runners": 3,
            "max_runners": 2,
            "runners_margin": 1,
            "max_concurrent_actors": 7,
            "drain_on_version_upgrade": False,
            "metadata_poll_interval": 7500,
            "actor_eviction_delay": 1,
            "actor_eviction_period": 2,
            "actor_eviction_rate": -0.5,
        }
        metadata = {"any": ["thing", None]}
        _put(api, _serverless(dead, **given, unknown_to_us=1) | {"metadata": metadata})
        expected = {"serverless": given | {"url": dead}, "metadata": metadata, "protocol_version": None}
        assert _read(api) == expected

    def test_the_flag_beside_the_kind_wins_and_null_is_absent(self, api, dead):
        _put(api, {"normal": {"drain_on_version_upgrade": True}, "drain_on_version_upgrade": False})
        assert _read(api)["normal"]["drain_on_version_upgrade"] is False
        _put(
            api,
            _serverless(dead, headers=None, max_runners=None, metadata_poll_interval=None) | {"metadata": None},
        )
        shown = _read(api)
        assert (shown["serverless"]["headers"], shown["serverless"]["max_runners"]) == ({}, 1000)
        assert shown.keys() == {"serverless", "protocol_version"}

    def test_it_says_whether_runners_are_reached_in_another_way(self, api, dead):
        for config, changed in [
            (NORMAL, True),
            (NORMAL, False),
            ({"normal": {"drain_on_version_upgrade": False}}, False),
            (_serverless(dead), True),
            (_serverless(dead), False),
            (_serverless(dead, max_runners=3), False),
            (_serverless(dead, headers={"a": "b"}), True),
            (_serverless(f"{dead}x", headers={"a": "b"}), True),
            (NORMAL, True),
        ]:
            assert _put(api, config) is changed, config

    def test_without_a_datacenter_the_pool_is_gone(self, api):
        _put(api, NORMAL)
        for _ in range(2):
            answer = api.ok("PUT", "/runner-configs/pool", {"datacenters": {}})
            assert answer == {"endpoint_config_changed": False}
            assert _read(api) is None

    def test_another_endpoint_starts_without_the_failures_of_the_old_one(self, api, namespace, dead):
        failing = {"error": "internal_error", "failures": 3, "url": dead, "kind": "serverless", "version": 5}
        row = make_pool(namespace, request_lifespan=timedelta(seconds=60), **failing)
        _put(api, _serverless(dead, min_runners=1))
        assert _read(api)["runner_pool_error"] == "internal_error"
        _put(api, _serverless(f"{dead}x", min_runners=1))
        assert "runner_pool_error" not in _read(api)
        row.refresh_from_db()
        assert (row.failures, row.endpoint_epoch, row.version) == (0, 1, 7)

    def test_a_serverless_pool_is_planned_anew(self, api, dead):
        _put(api, _serverless(dead))
        row = RunnerConfig.objects.get()
        assert row.due_at is not None
        assert signals("pools", row.pk) == [{"t": "bump"}]

    def test_a_pool_of_the_other_kind_is_another_one_and_the_old_one_drains(self, api, dead):
        _put(api, _serverless(dead))
        old = RunnerConfig.objects.get()
        _put(api, NORMAL)
        old.refresh_from_db()
        assert old.deleted_at is not None
        assert old.due_at is not None
        assert signals("pools", old.pk) == [{"t": "bump"}] * 2
        assert list(_read(api)) == ["normal", "protocol_version"]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"datacenters": None},
            {"datacenters": []},
            {"datacenters": {"default": None}},
            {"datacenters": {"default": {}}},
            {"datacenters": {"default": {"normal": None}}},
            {"datacenters": {"default": {"serverless": None, "metadata": 1}}},
            {"datacenters": {"default": {"normal": {}, "serverless": {"url": "http://a", "request_lifespan": 9}}}},
            {"datacenters": {"default": {"normal": {}, "serverless": None}}},
            {"datacenters": {"default": {"normal": {"drain_on_version_upgrade": "true"}}}},
            {"datacenters": {"default": {"normal": {"actor_eviction_delay": -1}}}},
            {"datacenters": {"default": {"normal": []}}},
            {"datacenters": {"default": NORMAL}, "surplus": 1},
        ],
    )
    def test_a_body_of_the_wrong_shape_is_a_bad_request(self, api, body):
        assert api.send("PUT", "/runner-configs/pool", body).refused == BAD_REQUEST

    @pytest.mark.parametrize(
        "change",
        [
            {"url": None},
            {"request_lifespan": None},
            {"slots_per_runner": -1},
            {"slots_per_runner": 1.0},
            {"slots_per_runner": "1"},
            {"max_runners": True},
            {"max_runners": 2**31},
            {"headers": {"a": 1}},
            {"headers": ["a"]},
            {"metadata_poll_interval": -1},
        ],
    )
    def test_a_field_of_the_wrong_type_is_a_bad_request(self, api, change):
        assert _refused(api, _serverless(**change)).refused == BAD_REQUEST

    @pytest.mark.parametrize(
        "change",
        [
            {"url": ""},
            {"url": "relative/path"},
            {"url": "ftp://host"},
            {"url": "http://"},
            {"headers": {f"h{index}": "" for index in range(17)}},
            {"headers": {"": "v"}},
            {"headers": {"a" * 129: "v"}},
            {"headers": {"a b": "v"}},
            {"headers": {"a": "line\nbreak"}},
            {"headers": {"a": "v" * 4097}},
            {"slots_per_runner": 0},
            {"request_lifespan": 0},
            {"request_lifespan": 60, "drain_grace_period": 60},
            {"request_lifespan": 60, "drain_grace_period": 61},
            {"request_lifespan": 3600, "drain_grace_period": 1801},
            {"metadata_poll_interval": 2**63 - 1},
        ],
    )
    def test_a_pool_that_cannot_work_is_refused_and_nothing_changes(self, api, change):
        _put(api, NORMAL)
        answer = _refused(api, _serverless(**change))
        assert answer.refused == (400, "runner_config.invalid")
        assert answer.json["metadata"]["reason"]
        assert "normal" in _read(api)

    @pytest.mark.parametrize(
        ("lifespan", "given", "grace"),
        [(60, None, 10), (20, None, 6), (1, None, 0), (1801, 1800, 1800), (2, 0, 0)],
    )
    def test_the_grace_of_a_drain_is_shorter_than_the_lifespan(self, api, dead, lifespan, given, grace):
        _put(api, _serverless(dead, request_lifespan=lifespan, drain_grace_period=given))
        assert _read(api)["serverless"]["drain_grace_period"] == grace

    def test_the_checks_come_in_order(self, api):
        body = {"datacenters": {"mars": _serverless("no url")}}
        assert Management("nobody").send("PUT", "/runner-configs/p", body).code == "datacenter.not_found"
        body = {"datacenters": {"default": _serverless("no url")}}
        assert Management("nobody").send("PUT", "/runner-configs/p", body).code == "namespace.not_found"

    @pytest.mark.parametrize("name", ["%20", "a%2Fb", "a" * 3_000, "%E5%90%8D"])
    def test_names_are_any_text(self, api, name):
        answer = api.send_encoded("PUT", f"/runner-configs/{name}", {"datacenters": {"default": NORMAL}})
        assert answer.status == 200
        assert api.send_encoded("DELETE", f"/runner-configs/{name}").status == 200

    @pytest.mark.parametrize("length", [5_000, 4_000])
    def test_a_name_too_long_is_refused_or_kept_and_never_an_error_of_ours(self, api, length):
        name = "".join(chr(0x4E00 + index * 37 % 20_000) for index in range(length // 3))  # hard to compress
        answer = api.send("PUT", f"/runner-configs/{name}", {"datacenters": {"default": NORMAL}})
        assert answer.status == 200 or answer.refused == (400, "runner_config.invalid")

    def test_many_at_once_leave_one_pool(self, namespace):
        def put(_):
            try:
                return _put(Management(), NORMAL)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(8) as threads:
            assert sorted(threads.map(put, range(8))) == [False] * 7 + [True]
        assert RunnerConfig.objects.count() == 1


class TestDelete:
    def test_a_pool_is_gone_at_once_and_may_be_made_again(self, api, dead):
        for config in (NORMAL, _serverless(dead)):
            _put(api, config)
            for _ in range(2):
                assert api.ok("DELETE", "/runner-configs/pool") == {}
                assert _read(api) is None
            assert _put(api, config)
            api.ok("DELETE", "/runner-configs/pool")

    def test_the_requests_of_a_serverless_pool_are_left_to_its_workflow(self, api, dead):
        _put(api, _serverless(dead))
        api.ok("DELETE", "/runner-configs/pool")
        row = RunnerConfig.objects.get()
        assert row.deleted_at is not None
        assert row.due_at is not None
        assert signals("pools", row.pk) == [{"t": "bump"}] * 2

    def test_the_namespace_is_checked(self, api):
        answer = Management("nobody").send("DELETE", "/runner-configs/pool")
        assert answer.refused == (400, "namespace.not_found")


class TestList:
    @pytest.fixture(autouse=True)
    def _pools(self, namespace):
        lifespan = {"request_lifespan": timedelta(seconds=60)}
        for name in ("b1", "a", "B", "ä"):
            make_pool(namespace, name)
        for name in ("s", "b2"):
            make_pool(namespace, name, kind="serverless", url="http://a", **lifespan)
        other = Namespace.objects.create(name="other", display_name="Other")
        make_pool(other, "foreign")

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ([], ["B", "a", "b1", "b2", "s", "ä"]),
            ([("variant", "normal")], ["B", "a", "b1", "ä"]),
            ([("variant", "serverless")], ["b2", "s"]),
            ([("variant", "")], ["B", "a", "b1", "b2", "s", "ä"]),
            ([("limit", "2")], ["B", "a"]),
            ([("limit", "0")], []),
            ([("cursor", "normal:b1")], ["ä"]),
            ([("cursor", ":b1")], ["b2", "s", "ä"]),
            ([("cursor", "normal:b1"), ("variant", "serverless")], ["b2", "s"]),
            ([("runner_name", "s"), ("runner_names", "a, nobody ,B,foreign")], ["B", "a", "s"]),
            ([("runner_name", "s"), ("variant", "normal"), ("limit", "0"), ("cursor", "x")], ["s"]),
        ],
    )
    def test_pools_are_listed_in_the_order_of_their_bytes(self, api, query, names):
        assert list(api.ok("GET", "/runner-configs", query=query)["runner_configs"]) == names

    @pytest.mark.parametrize("kind", ["", "normal", "serverless"])
    def test_every_page_goes_on_where_the_last_one_ended(self, api, kind):
        everything = list(api.ok("GET", "/runner-configs", query={"variant": kind})["runner_configs"])
        seen, cursor = [], ""
        while True:
            query = {"variant": kind, "limit": "1", "cursor": cursor}
            page = api.ok("GET", "/runner-configs", query=query)
            if not page["runner_configs"]:
                break
            seen += page["runner_configs"]
            cursor = page["pagination"]["cursor"]
        assert seen == everything
        assert page["pagination"] == {"cursor": None}

    @pytest.mark.parametrize("query", [{"cursor": "b1"}, {"cursor": "other:b1"}, {"variant": "other"}])
    def test_what_cannot_be_read_is_a_bad_request(self, api, query):
        assert api.send("GET", "/runner-configs", query=query).refused == BAD_REQUEST
