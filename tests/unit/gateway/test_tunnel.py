"""A request in the runner protocol's words, and its answer back in HTTP's."""

import pytest

from gateway.errors import InvalidResponse
from gateway.tunnel import cors_headers, preflight_headers, request_start, response_head
from runners.protocol.messages import ToServerResponseStart

RAY = "ray"
CORS = cors_headers(None)


def start(headers=(), *, method="POST", body=b"body"):
    return request_start("actor", method, "/x?y", headers, body, RAY)


def head(status=200, headers=None, body=b"hi", *, method="GET", stream=False):
    return response_head(ToServerResponseStart(status, headers or {}, body, stream), method, CORS, RAY)


def test_a_request_goes_in_one_frame_that_is_never_streamed():
    sent = start([(b"X-A", b"1")])
    assert (sent.actor_id, sent.method, sent.path) == ("actor", "POST", "/x?y")
    assert (sent.body, sent.stream) == (b"body", False)
    assert sent.headers == {"x-a": "1", "x-rivet-ray-id": RAY}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"a", b"1"), (b"A", b"2")], {"a": "1, 2"}),
        ([(b"cookie", b"a=1"), (b"cookie", b"b=2")], {"cookie": "a=1; b=2"}),
        ([(b"a", b"caf\xc3\xa9")], {}),
        ([(b"host", b"h"), (b"connection", b"close"), (b"authorization", b"x")], None),
    ],
)
def test_repeated_headers_are_joined_and_unreadable_ones_dropped(headers, expected):
    expected = {n.decode(): v.decode() for n, v in headers} if expected is None else expected
    assert start(headers).headers == {**expected, "x-rivet-ray-id": RAY}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_or_head_loses_its_body_and_its_length(method):
    sent = start([(b"content-length", b"4")], method=method)
    assert sent.body is None
    assert "content-length" not in sent.headers


def test_an_empty_body_is_absent():
    assert start(body=b"").body is None


def test_the_length_of_a_whole_answer_is_what_it_is_not_what_the_runner_says():
    answer = head(headers={"Content-Length": "99", "X-A": "1"})
    assert dict(answer.headers)[b"content-length"] == b"2"
    assert (b"x-a", b"1") in answer.headers
    assert (b"x-rivet-ray-id", b"ray") in answer.headers


def test_the_answer_to_head_keeps_its_length_and_has_no_body():
    answer = head(headers={"content-length": "99"}, body=None, method="HEAD")
    assert not answer.has_body
    assert dict(answer.headers)[b"content-length"] == b"99"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_get_none(status):
    assert not head(status).has_body


def test_hop_by_hop_headers_stop_here_and_cors_is_ours():
    theirs = {"transfer-encoding": "chunked", "connection": "close", "access-control-allow-origin": "x"}
    answer = head(headers=theirs)
    names = [name for name, _ in answer.headers]
    assert b"transfer-encoding" not in names
    assert b"connection" not in names
    assert dict(answer.headers)[b"access-control-allow-origin"] == b"*"


@pytest.mark.parametrize(
    ("status", "headers"),
    [(99, {}), (101, {}), (600, {}), (0, {}), (200, {"a b": "x"}), (200, {"": "x"}), (200, {"a": "x\r\nb: y"})],
)
def test_an_answer_that_is_no_http_is_an_error(status, headers):
    with pytest.raises(InvalidResponse):
        head(status, headers)


def test_an_origin_is_echoed_and_varied_on():
    assert dict(cors_headers(b"http://a"))[b"access-control-allow-origin"] == b"http://a"
    assert (b"vary", b"Origin") in cors_headers(b"http://a")
    assert b"vary" not in dict(cors_headers(None))


def test_a_preflight_allows_what_it_asks_for():
    asked = dict(preflight_headers({b"origin": b"http://a", b"access-control-request-headers": b"x-a"}, RAY))
    assert asked[b"access-control-allow-headers"] == b"x-a"
    assert asked[b"access-control-max-age"] == b"86400"
    assert dict(preflight_headers({}, RAY))[b"access-control-allow-headers"] == b"*"
