"""An actor's storage against a dict, its limits, and who may touch it (PROTOCOL §6, DESIGN I12)."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from actors import kv
from actors.models import Actor, ActorStorage, StoredEntry
from orchestrator import VERSION
from orchestrator.models import Namespace
from runners.models import Runner
from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDeleteResponse,
    KvDropRequest,
    KvDropResponse,
    KvErrorResponse,
    KvGetRequest,
    KvGetResponse,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListRangeQuery,
    KvListRequest,
    KvListResponse,
    KvPutRequest,
    KvPutResponse,
)
from runners.storage import Caller
from tests.support.management import make_runner
from tests.support.storage import Hosted, make_hosted_actor

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = st.lists(st.sampled_from([0, 0x61, 0x7F, 0x80, 0xFF]), max_size=3).map(bytes)
VALUES = st.sampled_from([b"", b"\0", b"value", b"\xff" * 3, b"long" * 50])
QUERIES = st.one_of(
    st.just(KvListAllQuery()),
    KEYS.map(KvListPrefixQuery),
    st.builds(KvListRangeQuery, KEYS, KEYS, st.booleans()),
)
ENTRIES = st.lists(st.tuples(KEYS, VALUES), max_size=5)
REQUESTS = st.one_of(
    ENTRIES.map(lambda entries: KvPutRequest([k for k, _ in entries], [v for _, v in entries])),
    st.lists(KEYS, max_size=4).map(KvGetRequest),
    st.builds(
        KvListRequest, QUERIES, st.sampled_from([None, False, True]), st.sampled_from([None, 0, 1, 2, 2**64 - 1])
    ),
    st.lists(KEYS, max_size=3).map(KvDeleteRequest),
    st.builds(KvDeleteRangeRequest, KEYS, KEYS),
    st.sampled_from([KvDropRequest(), *(KvListRequest(KvListAllQuery(), None, None),) * 9]),
)
BATCH, BATCHES = 100, 102


@pytest.fixture
def hosted(namespace):
    return Hosted(namespace)


class TestModel:
    def test_ten_thousand_random_requests_are_answered_as_a_dict_would(self, namespace, hosted):
        compared = 0

        @hypothesis_settings(
            max_examples=BATCHES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(st.lists(REQUESTS, min_size=BATCH, max_size=BATCH))
        def compare(requests):
            nonlocal compared
            actor_id = make_hosted_actor(namespace, hosted.runner).pk
            model = {}
            for request in requests:
                answer = hosted.ask(request, actor_id=actor_id)
                assert told(answer) == expected(model, request), request
                compared += 1
            assert used_bytes(actor_id) == counted_bytes(actor_id) == kv.stored_bytes(model)

        compare()
        assert compared >= 10_000

    def test_keys_are_in_the_order_of_their_bytes(self, hosted):
        keys = [
            bytes(key)
            for size in (0, 1, 2)
            for key in itertools.product([0, 1, 0x41, 0x61, 0x7F, 0x80, 0xC3, 0xFF], repeat=size)
        ]
        assert keys != sorted(keys)
        assert hosted.ask(KvPutRequest(keys, keys)) == KvPutResponse()
        assert list(hosted.everything()) == sorted(keys)

    @pytest.mark.parametrize("prefix", [b"", b"a", b"a\xff", b"\xff", b"\xff\xff"])
    def test_a_prefix_finds_every_key_that_begins_with_it(self, hosted, prefix):
        keys = [bytes(key) for size in (0, 1, 2, 3) for key in itertools.product(b"ab\xff", repeat=size)]
        hosted.ask(KvPutRequest(keys, keys))
        found = hosted.ask(KvListRequest(KvListPrefixQuery(prefix), reverse=None, limit=None))
        assert found.keys == sorted(key for key in keys if key.startswith(prefix))


class TestMetadata:
    def test_it_says_which_engine_wrote_a_value_and_when(self, hosted):
        before = time.time_ns() // 1_000_000
        hosted.put(a="1")
        between = time.time_ns() // 1_000_000
        hosted.put(b="2", a="3")
        after = time.time_ns() // 1_000_000
        found = hosted.ask(KvListRequest(KvListAllQuery(), reverse=None, limit=None))
        assert (found.keys, found.values) == ([b"a", b"b"], [b"3", b"2"])
        assert {one.version for one in found.metadata} == {VERSION.encode()}
        assert all(before <= between <= one.update_ts_ms <= after for one in found.metadata)


class TestLimits:
    def test_a_put_at_all_limits_is_read_back(self, hosted):
        entries = {b"%08d" % i: bytes([i]) * 131_072 for i in range(7)}
        entries[b"k" * 2046] = b"v" * (999_424 - kv.stored_bytes(entries) - 2048)
        assert kv.stored_bytes(entries) == 999_424
        assert hosted.ask(KvPutRequest(list(entries), list(entries.values()))) == KvPutResponse()
        assert hosted.ask(KvGetRequest(list(entries))).values == list(entries.values())

    @pytest.mark.parametrize(
        ("keys", "values", "text"),
        [
            ([b"k"], [], "Keys list length != values list length"),
            ([b"k"] * 129, [b""] * 129, "A maximum of 128 key-value entries is allowed"),
            ([b"k" * 2047], [b""], "key is too long (max 2048 bytes)"),
            ([b"fine", b"k"], [b"v", b"v" * 131_073], "value is too large (max 128 KiB)"),
        ],
    )
    def test_a_refused_put_writes_nothing(self, hosted, keys, values, text):
        assert hosted.ask(KvPutRequest(keys, values)) == KvErrorResponse(text)
        assert hosted.everything() == {}
        assert used_bytes(hosted.actor.pk) == 0

    @pytest.mark.parametrize("request_", [KvGetRequest([b""] * 129), KvDeleteRequest([b""] * 129)])
    def test_too_many_keys_are_refused(self, hosted, request_):
        assert hosted.ask(request_) == KvErrorResponse("a maximum of 128 keys is allowed")

    def test_the_quota_is_checked_before_the_sizes_and_told_exactly(self, hosted, env):
        env(actor_storage_bytes=100)
        assert hosted.put(a="x" * 97) == KvPutResponse()  # 1 + 2 + 97
        text = "not enough space left in storage: 0 bytes remaining, 2050 needed"
        assert hosted.ask(KvPutRequest([b"k" * 2047], [b"v"])) == KvErrorResponse(text)
        assert hosted.put(a="y" * 97) == KvPutResponse()
        assert hosted.put(a="y" * 98) == KvErrorResponse(
            "not enough space left in storage: 0 bytes remaining, 1 needed"
        )
        assert hosted.put(a="z") == KvPutResponse()
        assert hosted.put(b="x" * 93) == KvPutResponse()
        assert hosted.ask(KvDeleteRequest([b"b"])) == KvDeleteResponse()
        assert hosted.put(c="x" * 93) == KvPutResponse()
        assert used_bytes(hosted.actor.pk) == 100

    def test_a_list_without_a_limit_gives_the_first_16384(self, hosted):
        fill(hosted.actor, 16_385, b"")
        found = hosted.ask(KvListRequest(KvListAllQuery(), reverse=None, limit=None))
        assert (len(found.keys), found.keys[-1]) == (16_384, b"%05d" % 16_383)
        assert len(hosted.ask(KvListRequest(KvListAllQuery(), reverse=None, limit=16_385)).keys) == 16_385

    def test_a_list_too_long_for_one_answer_is_refused_not_cut(self, hosted):
        fill(hosted.actor, 256, b"v" * 131_072)
        whole = hosted.ask(KvListRequest(KvListAllQuery(), reverse=None, limit=None))
        assert whole == KvErrorResponse("the answer is too large: ask for fewer entries, by a limit or a range")
        part = hosted.ask(KvListRequest(KvListAllQuery(), reverse=True, limit=240))
        assert len(part.keys) == 240
        assert hosted.ask(KvDropRequest()) == KvDropResponse()  # the connection is as good as before
        assert hosted.everything() == {}


class TestOwner:
    REQUESTS = [
        KvGetRequest([b"k"]),
        KvGetRequest([]),
        KvGetRequest([b""] * 129),
        KvListRequest(KvListAllQuery(), None, None),
        KvPutRequest([b"k"], [b"stolen"]),
        KvPutRequest([], []),
        KvPutRequest([b"k"], []),
        KvDeleteRequest([b"k"]),
        KvDeleteRangeRequest(b"a", b"z"),
        KvDropRequest(),
    ]

    @pytest.mark.parametrize("index", range(len(REQUESTS)))
    @pytest.mark.parametrize(
        "change",
        ["unknown", "unreadable", "asleep", "another runner", "another namespace", "generation", "destroyed"],
    )
    def test_nobody_else_reads_or_writes_it(self, namespace, hosted, change, index):
        hosted.put(k="mine")
        caller, actor_id, text = hosted.caller, hosted.actor.pk, "actor does not exist"
        match change:
            case "unknown":
                actor_id = "0" * 30
            case "unreadable":
                actor_id = "act\0"
            case "asleep":
                Actor.objects.update(status="asleep", runner_id="")
            case "another runner":
                caller = Caller(make_runner(namespace, "thief", socket_id="socket").pk, "socket", None)
                text = "actor does not belong to runner"
            case "another namespace":
                elsewhere = Namespace.objects.create(name="elsewhere", display_name="Elsewhere")
                caller = Caller(make_runner(elsewhere, "thief", socket_id="socket").pk, "socket", None)
            case "generation":
                Actor.objects.update(generation=1)
                caller = Caller(caller.runner_id, caller.socket_id, 0)
            case "destroyed":
                Actor.objects.update(status="destroyed", runner_id="", destroyed_at="2026-01-01T00:00Z")
        answer = hosted.ask(self.REQUESTS[index], caller=caller, actor_id=actor_id)
        assert answer == KvErrorResponse(text)
        assert [bytes(entry.value) for entry in StoredEntry.objects.all()] == [b"mine"]

    @pytest.mark.parametrize("status", ["starting", "running", "stopping"])
    def test_its_runner_may_from_the_start_command_to_the_end_of_the_stop(self, hosted, status):
        Actor.objects.update(status=status)
        assert hosted.put(k="v") == KvPutResponse()
        assert hosted.get("k") == b"v"

    def test_what_was_asked_over_an_older_socket_changes_nothing_any_more(self, hosted):
        hosted.put(k="old")
        Runner.objects.update(socket_id="newer")
        for request in (KvPutRequest([b"k"], [b"late"]), KvDeleteRequest([b"k"]), KvDropRequest()):
            assert hosted.ask(request) == KvErrorResponse("the runner has another connection")
        assert hosted.get("k") == b"old"

    def test_actors_do_not_see_each_other(self, namespace, hosted):
        other = make_hosted_actor(namespace, hosted.runner)
        hosted.put(k="mine")
        hosted.ask(KvPutRequest([b"k", b"l"], [b"theirs", b""]), actor_id=other.pk)
        assert hosted.everything() == {b"k": b"mine"}
        hosted.ask(KvDropRequest(), actor_id=other.pk)
        assert hosted.everything() == {b"k": b"mine"}


class TestRaces:
    def test_a_put_is_committed_before_the_generation_is_over_or_refused(self, hosted):
        """The workflow holds the row while it ends the life: the put waits for it and finds itself late."""
        begun, ended = threading.Event(), threading.Event()

        def end_the_life():
            try:
                with transaction.atomic():
                    Actor.objects.select_for_update().get(pk=hosted.actor.pk)
                    begun.set()
                    ended.wait(10)
                    Actor.objects.update(status="asleep", runner_id="")
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as threads:
            workflow = threads.submit(end_the_life)
            begun.wait(10)
            putting = threads.submit(in_thread, lambda: hosted.put(k="late"))
            with pytest.raises(TimeoutError):
                putting.result(0.3)
            ended.set()
            workflow.result(10)
            assert putting.result(10) == KvErrorResponse("actor does not exist")
        assert not StoredEntry.objects.exists()

    def test_the_account_does_not_drift_when_many_write_at_once(self, hosted):
        def churn(seed):
            for step in range(15):
                hosted.put(**{f"k{(seed + step) % 4}": "x" * (seed * 7 + step), "all": "y" * step})
                hosted.ask(KvDeleteRequest([b"k%d" % (step % 4)]))

        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(in_thread, churn, seed) for seed in range(4)]:
                done.result(60)
        assert used_bytes(hosted.actor.pk) == counted_bytes(hosted.actor.pk) > 0

    def test_a_list_shows_every_put_whole_or_not_at_all(self, hosted):
        names = [f"k{number}" for number in range(100)]
        hosted.put(**dict.fromkeys(names, "0"))
        ended = threading.Event()

        def write():
            for round_ in itertools.count(1):
                if ended.is_set():
                    return
                hosted.put(**dict.fromkeys(names, str(round_)))

        with ThreadPoolExecutor(1) as threads:
            writing = threads.submit(in_thread, write)
            try:
                seen = [set(hosted.everything().values()) for _ in range(30)]
            finally:
                ended.set()
            writing.result(10)
        assert all(len(values) == 1 for values in seen)


@pytest.mark.parametrize("request_", [KvGetRequest([b"k"]), KvPutRequest([b"k"], [b"v"])])
def test_a_kept_connection_that_has_broken_costs_no_request(hosted, request_):
    hosted.put(k="v")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [pid] = cursor.fetchone()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(in_thread, end_backend, pid).result(10)
    else:
        connection.close()
    assert not isinstance(hosted.ask(request_), KvErrorResponse)


def end_backend(pid):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])


def in_thread(function, *args):
    try:
        return function(*args)
    finally:
        connections.close_all()


def told(answer):
    """Return an answer without its metadata, which there must be for every key."""
    if isinstance(answer, KvGetResponse | KvListResponse):
        assert len(answer.metadata) == len(answer.keys)
        return type(answer), list(zip(answer.keys, answer.values, strict=True))
    return answer


def expected(model, request):
    """Return what is to be answered, and do to the model what is asked for."""
    match request:
        case KvPutRequest(keys, values):
            model.update(zip(keys, values, strict=True))
            return KvPutResponse()
        case KvGetRequest(keys):
            return KvGetResponse, [(key, model[key]) for key in dict.fromkeys(keys) if key in model]
        case KvListRequest(query, reverse, limit):
            rows = sorted(item for item in model.items() if selects(query, item[0]))
            return KvListResponse, (rows[::-1] if reverse else rows)[:limit]
        case KvDeleteRequest(keys):
            for key in keys:
                model.pop(key, None)
            return KvDeleteResponse()
        case KvDeleteRangeRequest(start, end):
            for key in [key for key in model if start <= key < end]:
                del model[key]
            return KvDeleteResponse()
        case KvDropRequest():
            model.clear()
            return KvDropResponse()


def selects(query, key):
    match query:
        case KvListAllQuery():
            return True
        case KvListPrefixQuery(prefix):
            return key.startswith(prefix)
        case KvListRangeQuery(start, end, exclusive):
            return start <= key < end or (key == end and start <= end and not exclusive)


def fill(actor, count, value):
    """Store entries under counted keys without asking."""
    StoredEntry.objects.bulk_create(
        [
            StoredEntry(actor_id=actor.pk, key=b"%05d" % n, value=value, version="1", updated_ms=n)
            for n in range(count)
        ],
        batch_size=200,
    )
    ActorStorage.objects.create(actor=actor, used_bytes=counted_bytes(actor.pk))


def used_bytes(actor_id):
    account = ActorStorage.objects.filter(pk=actor_id).first()
    return account.used_bytes if account else 0


def counted_bytes(actor_id):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(length(key) + length(value) + 2), 0) FROM actors_storedentry WHERE actor_id = %s",
            [actor_id],
        )
        return int(cursor.fetchone()[0])
