"""The endpoints of serverless pools, asked what they are (API §6)."""

from datetime import timedelta

import pytest

from runners.models import ActorName
from tests.support.http_server import Reply, http_server
from tests.support.management import Management, make_pool
from tests.support.processes import free_port

pytestmark = pytest.mark.django_db(transaction=True)

BAD_REQUEST = (400, "api.bad_request")
METADATA = {
    "runtime": "rivetkit",
    "version": " 2.1 ",
    "actorNames": {"chat": {"metadata": {"icon": "x"}}, "no": {}},
}


@pytest.fixture
def dead():
    """The URL of an endpoint that is not there."""
    return f"http://127.0.0.1:{free_port()}/"


def _put(api, url, **fields):
    config = {"serverless": {"url": url, "request_lifespan": 60} | fields}
    api.ok("PUT", "/runner-configs/pool", {"datacenters": {"default": config}})


class TestMetadata:
    def test_a_new_endpoint_is_asked_for_its_actor_names(self, api):
        with http_server(Reply(200, METADATA)) as endpoint:
            _put(api, f"{endpoint.url}/api//", headers={"x-token": "t"})
            _put(api, f"{endpoint.url}/api//", headers={"x-token": "t"}, max_runners=2)
        [call] = endpoint.calls
        assert (call.path, call.headers["x-token"]) == ("/api/metadata", "t")
        assert call.headers["user-agent"].startswith("RivetEngine/")
        assert api.ok("GET", "/actors/names")["names"] == {"chat": {"metadata": {"icon": "x"}}}

    def test_it_is_stored_even_if_its_endpoint_is_not_there(self, api, dead):
        _put(api, dead)

    def test_a_refresh_replaces_what_was_announced(self, api, namespace):
        with http_server(Reply(200, METADATA)) as endpoint:
            make_pool(namespace, kind="serverless", url=endpoint.url, request_lifespan=timedelta(seconds=60))
            ActorName.objects.create(namespace=namespace, name="chat", metadata={"icon": "old"})
            assert api.ok("POST", "/runner-configs/pool/refresh-metadata", {}) == {}
        assert ActorName.objects.get(name="chat").metadata == {"icon": "x"}

    def test_a_refresh_tells_why_it_failed(self, api, namespace, dead):
        make_pool(namespace, kind="serverless", url=dead, request_lifespan=timedelta(seconds=60))
        answer = api.send("POST", "/runner-configs/pool/refresh-metadata", {})
        assert answer.refused == (400, "serverless_runner_pool.failed_to_fetch_metadata")
        assert answer.json["metadata"]["reason"]["metadata"] == {"kind": "request_failed"}

    def test_only_a_serverless_pool_can_be_refreshed(self, api, namespace):
        make_pool(namespace)
        for name in ("pool", "nobody"):
            answer = api.send("POST", f"/runner-configs/{name}/refresh-metadata", {})
            assert answer.refused == (400, "runner_config.not_found")


class TestHealthCheck:
    PATH = "/runner-configs/serverless-health-check"

    def _failure(self, api, body):
        answer = api.ok("POST", self.PATH, body)
        assert list(answer) == ["failure"]
        assert answer["failure"]["error"]["message"]
        return answer["failure"]["error"]["metadata"]

    def test_a_good_endpoint_tells_its_version_and_nothing_is_stored(self, api):
        with http_server(Reply(200, METADATA)) as endpoint:
            assert api.ok("POST", self.PATH, {"url": endpoint.url}) == {"success": {"version": "2.1"}}
        assert not ActorName.objects.exists()

    @pytest.mark.parametrize(
        ("reply", "metadata"),
        [
            (Reply(404, b"no"), {"kind": "non_success_status", "status_code": 404, "body": "no"}),
            (
                Reply(500, b"x" * 1_025),
                {"kind": "non_success_status", "status_code": 500, "body": "x" * 1_024 + "...[truncated]"},
            ),
            (Reply(200, b"<p>"), {"kind": "invalid_response_json", "body": "<p>"}),
            (Reply(200, b"[]"), {"kind": "invalid_response_json", "body": "[]"}),
            (Reply(200, {}), {"kind": "invalid_response_schema", "runtime": "", "version": ""}),
            (
                Reply(200, {"runtime": "node", "version": "1"}),
                {"kind": "invalid_response_schema", "runtime": "node", "version": "1"},
            ),
            (
                Reply(200, {"runtime": "rivetkit", "version": " "}),
                {"kind": "invalid_response_schema", "runtime": "rivetkit", "version": " "},
            ),
        ],
    )
    def test_a_bad_answer_is_told(self, api, reply, metadata):
        with http_server(reply) as endpoint:
            assert self._failure(api, {"url": endpoint.url}) == metadata

    def test_an_endpoint_that_is_not_there_is_told(self, api, dead):
        assert self._failure(api, {"url": dead}) == {"kind": "request_failed"}

    @pytest.mark.parametrize("url", ["", " ", "relative", "ftp://host"])
    def test_what_cannot_be_called_is_not_called(self, api, url):
        assert self._failure(api, {"url": url}) == {"kind": "invalid_request"}

    def test_an_illegal_header_is_not_sent(self, api):
        with http_server(Reply(200, METADATA)) as endpoint:
            body = {"url": endpoint.url, "headers": {"a b": "c"}}
            assert self._failure(api, body) == {"kind": "invalid_request"}
        assert endpoint.calls == []

    @pytest.mark.parametrize("body", [{}, {"url": 1}, {"url": "http://a", "headers": None}, {"url": "u", "x": 1}])
    def test_a_body_of_the_wrong_shape_is_a_bad_request(self, api, body):
        assert api.send("POST", self.PATH, body).refused == BAD_REQUEST

    def test_the_namespace_must_exist(self, api):
        answer = Management("nobody").send("POST", self.PATH, {"url": "http://a"})
        assert answer.refused == (400, "namespace.not_found")
