"""The rules of API §1 that hold for every endpoint."""

import asyncio
import json
import re

import pytest
import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection

from orchestrator.api.body import MAX_BODY_BYTES
from orchestrator.api.bounded import bounded
from orchestrator.api.middleware import RAY_ID
from orchestrator.asgi import django_application
from orchestrator.models import Namespace
from tests.support.management import JSON, Management, make_actor

NAMES = {"name": "one", "display_name": "One"}
ACTOR = {"name": "n", "runner_name_selector": "pool", "crash_policy": "sleep"}
UNKNOWN_ID = "0" * 30
BAD_REQUEST = (400, "api.bad_request")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize(
    "path",
    [
        "/no/such/path",
        "/actors/",
        "/actors//names",
        "/Actors",
        "/actors//sleep",
        f"/actors/{UNKNOWN_ID}/kv/keys/",
        f"/actors/{UNKNOWN_ID}/kv/keys/a/b",
        "/runner-configs/",
        "/health/",
        "/admin",
    ],
)
def test_an_unknown_path_is_not_found_whatever_the_method(api, method, path):
    answer = api.send(method, path)
    assert answer.status == 404
    assert answer.headers[RAY_ID]
    if method != "HEAD":
        assert answer.json == {
            "group": "api",
            "code": "not_found",
            "message": "There is nothing at this path.",
        }


@pytest.mark.parametrize(
    ("path", "allowed", "wrong"),
    [
        ("/actors", "GET,HEAD,POST,PUT", "DELETE"),
        (f"/actors/{UNKNOWN_ID}", "DELETE", "GET"),
        ("/actors/names", "GET,HEAD", "DELETE"),
        ("/actors/anything/sleep", "POST", "GET"),
        ("/actors/anything/kv/keys/aw==", "GET,HEAD", "PUT"),
        ("/namespaces", "GET,HEAD,POST", "PUT"),
        ("/runner-configs", "GET,HEAD", "POST"),
        ("/runner-configs/pool", "DELETE,PUT", "GET"),
        ("/runner-configs/serverless-health-check", "POST", "PUT"),
        ("/runner-configs/serverless-health-check", "POST", "DELETE"),
        ("/health", "GET,HEAD", "POST"),
        ("/", "GET,HEAD", "POST"),
        ("/openapi.json", "GET,HEAD", "POST"),
        ("/docs", "GET,HEAD", "PUT"),
    ],
)
def test_a_known_path_says_which_methods_it_takes(api, path, allowed, wrong):
    answer = api.send(wrong, path)
    assert answer.refused == (405, "api.method_not_allowed")
    assert answer.headers["allow"] == allowed
    options = api.send("OPTIONS", path)
    assert (options.status, options.body, options.headers["allow"]) == (200, b"", allowed)


def test_options_are_answered_everywhere_without_a_token(api, with_token):
    answer = api.send("OPTIONS", "/no/such/path")
    assert (answer.status, answer.body) == (200, b"")
    assert "allow" not in answer.headers


@pytest.mark.parametrize("path", ["/datacenters", "/actors", "/namespaces?limit=x"])
def test_head_is_get_without_the_body(api, path):
    got, head = api.send("GET", path), api.send("HEAD", path)
    assert head.status == got.status
    assert head.body == b""
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


def test_every_answer_has_a_ray_id_of_its_own(api):
    answers = [api.send("GET", path) for path in ("/datacenters", "/datacenters", "/none", "/admin/")]
    rays = [answer.headers[RAY_ID] for answer in answers]
    assert all(re.fullmatch("[0-9a-z]{30}", ray) for ray in rays)
    assert len(set(rays)) == len(rays)


def test_the_root_leads_to_the_pages_for_people(api):
    answer = api.send("GET", "/")
    assert (answer.status, answer.headers["location"]) == (308, "/admin/")


def test_the_api_describes_itself(api):
    described = api.ok("GET", "/openapi.json", query={})["paths"]
    assert {"/actors", "/runner-configs/{runner_name}", "/namespaces", "/health"} <= set(described)
    names = [parameter["name"] for parameter in described["/actors"]["get"]["parameters"]]
    assert names == ["namespace", "limit", "cursor", "name", "key", "actor_id", "actor_ids", "include_destroyed"]
    assert api.send("GET", "/docs").status == 200


def test_an_unexpected_failure_is_an_internal_error_and_tells_nothing(api, monkeypatch, caplog):
    monkeypatch.setattr(settings, "ENV", None)  # every endpoint trips over its token check
    answer = api.send("GET", "/datacenters")
    assert answer.refused == (500, "core.internal_error")
    assert "NoneType" not in answer.body.decode()
    assert caplog.records[0].action == "request_failed"
    assert caplog.records[0].ray_id == answer.headers[RAY_ID]


@pytest.mark.parametrize(
    "error", [OperationalError("away"), InterfaceError("closed"), redis.ConnectionError("away")]
)
def test_a_store_that_is_away_is_a_503_that_says_so_and_no_more(api, caplog, error):
    def away(*_):
        raise error

    with connection.execute_wrapper(away):
        answer = api.send("GET", "/actors", query={"name": "counter"})
    assert answer.refused == (503, "core.store_unavailable")
    assert str(error) not in answer.json["message"]
    assert caplog.records[0].exc_info[1] is error


class TestCors:
    PREFLIGHT = {
        "origin": "https://app.example",
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization, x-anything",
    }

    @pytest.mark.parametrize("method", ["OPTIONS", "GET"])
    @pytest.mark.parametrize("path", ["/actors", "/health", "/metadata"])
    def test_a_known_path_lets_the_asking_origin_in(self, api, method, path, redis_url):
        headers = api.send(method, path, headers=self.PREFLIGHT).headers
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["access-control-allow-methods"] == "PUT"
        assert headers["access-control-allow-headers"] == "authorization, x-anything"
        assert headers["access-control-expose-headers"] == RAY_ID
        assert headers["vary"] == "origin, access-control-request-method, access-control-request-headers"

    def test_who_tells_no_origin_gets_none(self, api):
        assert "access-control-allow-origin" not in api.send("GET", "/datacenters").headers

    @pytest.mark.parametrize("method", ["OPTIONS", "GET"])
    def test_an_unknown_path_lets_anybody_in_without_credentials(self, api, method):
        headers = api.send(method, "/none", headers=self.PREFLIGHT).headers
        for what in ("allow-origin", "allow-methods", "allow-headers", "expose-headers"):
            assert headers[f"access-control-{what}"] == "*"
        assert "access-control-allow-credentials" not in headers


@pytest.fixture
def with_token(monkeypatch):
    monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"admin_token": "geheim-ä"}))


class TestToken:
    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            (None, "Token not provided"),
            ("", "Token not provided"),
            ("bearer geheim", "Token not provided"),
            ("Basic geheim", "Token not provided"),
            ("Bearer", "Invalid token"),
            ("Bearer geheimer", "Invalid token"),
            ("Bearer  geheim", "Invalid token"),
        ],
    )
    def test_without_the_token_nothing_is_told(self, api, monkeypatch, header, reason):
        monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"admin_token": "geheim"}))
        headers = {} if header is None else {"authorization": header}
        calls = [("GET", "/datacenters"), ("GET", "/actors"), ("POST", "/actors"), ("GET", "/health/fanout")]
        for method, path in calls:
            answer = api.send(method, path, ACTOR, query={"name": "n"} if method == "GET" else {}, headers=headers)
            assert answer.refused == (403, "api.forbidden")
            assert answer.json["metadata"] == {"reason": reason}

    def test_with_the_token_everything_is_as_it_was(self, api, monkeypatch):
        monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"admin_token": "geheim"}))
        assert api.send("GET", "/datacenters", headers={"authorization": "Bearer geheim"}).status == 200

    def test_a_token_that_is_not_ascii_is_merely_wrong(self, api, with_token):
        answer = api.send("GET", "/datacenters", headers={"authorization": "Bearer \xe4"})
        assert answer.refused == (403, "api.forbidden")

    @pytest.mark.parametrize("path", ["/metadata", "/openapi.json", "/docs", "/"])
    def test_some_paths_never_ask_for_it(self, api, with_token, path):
        assert api.send("GET", path).status in (200, 308)

    @pytest.mark.parametrize(("path", "status"), [("/none", 404), ("/actors/names", 405)])
    def test_what_is_not_there_needs_no_token(self, api, with_token, path, status):
        assert api.send("PUT", path).status == status

    def test_without_a_configured_token_the_header_is_ignored(self, api):
        assert api.send("GET", "/datacenters", headers={"authorization": "Bearer whatever"}).status == 200


class TestBody:
    @pytest.mark.parametrize(
        "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonl"]
    )
    def test_a_body_must_say_that_it_is_json(self, api, content_type):
        answer = api.send("POST", "/namespaces", NAMES, query={}, content_type=content_type)
        assert answer.refused == BAD_REQUEST

    @pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8", "application/vnd.x+json"])
    def test_json_has_several_names(self, api, content_type):
        api.ok("POST", "/namespaces", NAMES, content_type=content_type)

    @pytest.mark.parametrize("path", ["/actors", "/namespaces", f"/actors/{UNKNOWN_ID}/sleep"])
    @pytest.mark.parametrize(
        "raw", [b"", b"{", b"[]", b"null", b'"x"', b"{} {}", b'{"name":"a","name":"a"}', b"\xff", b'{"x": 1}']
    )
    def test_anything_but_the_object_that_was_asked_for_is_refused(self, api, path, raw):
        answer = api.send("POST", path, raw=raw)
        assert answer.refused == BAD_REQUEST
        assert answer.json["metadata"]["reason"]

    @pytest.mark.parametrize(
        "change",
        [
            {"name": None},
            {"name": 1},
            {"name": ["n"]},
            {"key": 1},
            {"crash_policy": "Sleep"},
            {"crash_policy": None},
            {"runner_name_selector": True},
            {"surplus": 1},
            {"surplus": None},
            {"name": "\0"},
            {"name": "\ud800"},
        ],
    )
    def test_a_field_of_the_wrong_kind_is_refused(self, api, change):
        assert api.send("POST", "/actors", ACTOR | change).refused == BAD_REQUEST

    @pytest.mark.parametrize("missing", ["name", "runner_name_selector", "crash_policy"])
    def test_a_required_field_must_be_there(self, api, missing):
        body = {name: value for name, value in ACTOR.items() if name != missing}
        answer = api.send("POST", "/actors", body)
        assert answer.refused == BAD_REQUEST
        assert missing in answer.json["metadata"]["reason"]

    @pytest.mark.parametrize(
        ("mib", "refusal"), [(2, BAD_REQUEST), (20, (413, "guard.invalid_request_body"))], ids=["2", "20"]
    )
    def test_a_body_has_a_limit(self, api, mib, refusal):
        raw = json.dumps(NAMES).encode().ljust(mib * 1024 * 1024 + 1)
        answer = api.send("POST", "/namespaces", raw=raw)
        assert answer.refused == refusal
        assert "length limit" in answer.json["metadata"]["reason"]

    def test_a_body_of_the_limit_is_read(self, api):
        raw = json.dumps(NAMES).encode().ljust(2 * 1024 * 1024)
        assert api.send("POST", "/namespaces", raw=raw).status == 200

    def test_a_body_that_was_not_asked_for_is_ignored(self, api):
        assert api.send("GET", "/datacenters", raw=b"{", content_type="text/plain").status == 200


class TestQuery:
    LISTS = ["/actors?name=n", "/actors/names", "/runners", "/runners/names", "/envoys", "/runner-configs"]

    @pytest.mark.parametrize("path", LISTS)
    @pytest.mark.parametrize(
        ("extra", "ok"),
        [
            ([("limit", "1")], True),
            ([("limit", "0")], True),
            ([("limit", "007")], True),
            ([("limit", str(2**64 - 1))], True),
            ([("limit", str(2**64))], False),
            ([("limit", "9" * 5_000)], False),
            ([("limit", "-1")], False),
            ([("limit", "+1")], False),
            ([("limit", "1.0")], False),
            ([("limit", "1e2")], False),
            ([("limit", " 1")], False),
            ([("limit", "٣")], False),
            ([("limit", "")], True),
            ([("cursor", "")], True),
            ([("limit", "1"), ("limit", "1")], False),
            ([("surplus", "1")], False),
            ([("surplus", "")], False),
            ([("namespace", "default"), ("namespace", "default")], False),
            ([("cursor", "a\0b")], False),
        ],
    )
    def test_parameters_are_read_to_the_letter(self, api, path, extra, ok):
        path, _, own = path.partition("?")
        query = [("namespace", "default"), *extra] if extra[0][0] != "namespace" else extra
        answer = api.send("GET", path, query=[*query, *([tuple(own.split("="))] if own else [])])
        assert answer.status == (200 if ok else 400), answer.body
        assert ok or answer.code == "api.bad_request"

    @pytest.mark.parametrize("path", LISTS)
    def test_the_namespace_is_required_and_must_exist(self, api, path):
        path, _, own = path.partition("?")
        query = [tuple(own.split("="))] if own else []
        assert Management(None).send("GET", path, query=query).refused == BAD_REQUEST
        for unknown in ("", "nobody", "Default"):
            answer = Management(unknown).send("GET", path, query=query)
            assert answer.refused == (400, "namespace.not_found")

    @pytest.mark.parametrize("path", ["/metadata", "/datacenters"])
    def test_some_paths_ignore_parameters(self, api, path):
        assert api.send("GET", path, query={"surplus": "1"}).status == 200

    def test_a_new_namespace_is_made_whatever_the_parameters(self, api):
        api.ok("POST", "/namespaces", NAMES, query={"surplus": "1"})

    @pytest.mark.parametrize(
        ("value", "ok"),
        [("true", True), ("false", True), ("", True), ("1", False), ("TRUE", False), ("yes", False)],
    )
    @pytest.mark.parametrize(("path", "flag"), [("/actors", "include_destroyed"), ("/runners", "include_stopped")])
    def test_a_flag_is_true_or_false(self, api, path, flag, value, ok):
        assert (api.send("GET", path, query={flag: value, "name": "n"}).status == 200) is ok

    @pytest.mark.parametrize("path", ["/actors?name=n", "/runners", "/envoys", "/namespaces"])
    @pytest.mark.parametrize(
        ("cursor", "ok"),
        [
            ("1", True),
            ("-1", True),
            ("0", True),
            ("99999999999999999999", True),
            (f"1-{UNKNOWN_ID}", True),
            ("x", False),
            ("1.5", False),
            ("+1", False),
            ("1-short", False),
            ("9" * 25, False),
        ],
    )
    def test_a_cursor_is_a_number_or_one_of_ours(self, api, path, cursor, ok):
        path, _, own = path.partition("?")
        query = [("cursor", cursor), *([tuple(own.split("="))] if own else [])]
        answer = Management(None if path == "/namespaces" else "default").send("GET", path, query=query)
        assert answer.status == (200 if ok else 400)

    def test_bad_escapes_in_a_query_are_taken_as_they_are(self, api):
        answer = api._client.get("/actors?namespace=default&name=%zz%ff+x")
        assert answer.status_code == 200

    def test_more_parameters_than_a_form_may_have_are_fine(self, api):
        answer = api.send("GET", "/runners", query=[("runner_id", UNKNOWN_ID)] * 1_100)
        assert answer.status == 200


class TestPath:
    @pytest.mark.parametrize("bad", ["short", "0" * 29, "0" * 31, "0" * 29 + "_", "%00" * 30, "%ff", "ä" * 30])
    def test_an_unreadable_id_is_a_bad_request(self, api, bad):
        assert api.send_encoded("DELETE", f"/actors/{bad}").refused == BAD_REQUEST

    def test_an_id_may_be_written_in_capitals(self, api, namespace):
        actor = make_actor(namespace)
        answer = api.send_encoded("POST", f"/actors/{actor.pk.upper()}/sleep", {})
        assert answer.status == 200

    def test_a_slash_in_a_name_is_no_separator(self, api):
        body = {"datacenters": {"default": {"normal": {}}}}
        assert api.send_encoded("PUT", "/runner-configs/a%2Fb%20%C3%A4", body).status == 200
        assert list(api.ok("GET", "/runner-configs")["runner_configs"]) == ["a/b ä"]
        assert api.send_encoded("PUT", "/runner-configs/a/b", body).refused == (404, "api.not_found")

    @pytest.mark.parametrize("bad", ["%ff", "%C3", "a%00b"])
    def test_a_name_must_be_utf8(self, api, bad):
        body = {"datacenters": {"default": {"normal": {}}}}
        assert api.send_encoded("PUT", f"/runner-configs/{bad}", body).refused == BAD_REQUEST

    def test_a_doubled_slash_is_another_path(self, api):
        assert api.send_encoded("GET", "//actors").refused == (404, "api.not_found")

    def test_an_escaped_letter_of_a_fixed_path_is_another_path(self, api):
        assert api.send_encoded("GET", "/%61ctors").refused == (404, "api.not_found")


async def _get(path, query=b""):
    """Return the status and the body with which the ASGI application answers."""
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    sent = []
    inbox = asyncio.Queue()  # empty after the request: the client stays
    inbox.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def send(message):
        sent.append(message)

    await django_application(scope | {"raw_path": path.encode()}, inbox.get, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.django_db(transaction=True)
async def test_the_asgi_application_answers_like_the_test_client(namespace):
    status, body = await _get("/namespaces", b"name=default")
    assert status == 200
    [found] = json.loads(body)["namespaces"]
    assert found["namespace_id"] == namespace.pk


@pytest.mark.parametrize("part_bytes", [1024, 3 * 1024 * 1024])
async def test_of_a_body_that_is_too_long_no_more_is_passed_on_than_tells_it(part_bytes):
    parts = [b" " * part_bytes] * (4 * 1024 * 1024 // part_bytes)
    passed_on = []

    async def application(scope, receive, send):
        while (message := await receive())["more_body"]:
            passed_on.append(message["body"])

    async def receive():
        body = parts.pop() if parts else b""
        return {"type": "http.request", "body": body, "more_body": bool(body)}

    await bounded(application)({"type": "http"}, receive, None)
    assert parts == []
    assert len(b"".join(passed_on)) == MAX_BODY_BYTES + 1


async def test_a_body_of_unknown_length_is_not_kept_beyond_its_limit():
    taken, sent = 0, []

    async def receive():
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b" " * 1024 * 1024, "more_body": True}  # and so on, without an end

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/namespaces", "query_string": b"", "headers": headers}
    await django_application(scope | {"raw_path": b"/namespaces"}, receive, send)
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["code"] == "invalid_request_body"
    assert b"x-rivet-ray-id" in dict(sent[0]["headers"])
    assert taken == 21


async def test_the_page_to_try_the_api_has_its_own_files(api):
    page = api.send("GET", "/docs").body.decode()
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert files
    for path in files:
        status, _ = await _get(path)
        assert status == 200, path
    assert (await _get("/static/none.css"))[0] == 404


def test_the_default_namespace_is_there_from_the_beginning(db):
    assert Namespace.objects.filter(name="default").exists()
