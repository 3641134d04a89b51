"""A request in the runner protocol's words, and its answer back in HTTP's."""

import pytest

from gateway.errors import InvalidResponse, TunnelBroken
from gateway.tunnel import Stream, cors_headers, preflight_headers, request_start, response_head
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
        (
            [(b"host", b"h"), (b"authorization", b"x"), (b"x-rivet-y", b"z")],
            {"host": "h", "authorization": "x", "x-rivet-y": "z"},
        ),
        ([(b"x-rivet-token", b"t")], {}),
    ],
)
def test_repeated_headers_are_joined_and_unreadable_ones_and_the_engines_token_dropped(headers, expected):
    assert start(headers).headers == {**expected, "x-rivet-ray-id": RAY}


@pytest.mark.parametrize(
    "headers",
    [
        [(b"connection", b"close"), (b"keep-alive", b"5"), (b"expect", b"100-continue")],
        [(b"transfer-encoding", b"chunked"), (b"te", b"trailers"), (b"upgrade", b"h2c")],
        [(b"x-hop", b"1"), (b"connection", b"keep-alive, X-Hop")],
    ],
)
def test_what_concerns_only_the_clients_connection_stays_here(headers):
    assert start([*headers, (b"a", b"1")]).headers == {"a": "1", "x-rivet-ray-id": RAY}


def test_a_streamed_request_begins_with_what_there_is_of_its_body():
    sent = request_start("actor", "POST", "/", [], b"first", RAY, stream=True)
    assert (sent.body, sent.stream) == (b"first", True)


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


def test_lines_of_a_value_are_headers_of_their_own_if_the_runner_says_so():
    start = ToServerResponseStart(200, {"set-cookie": "a=1; path=/\nb=2"}, None, False)
    answer = response_head(start, "GET", CORS, RAY, multi_headers=True)
    cookies = [value for name, value in answer.headers if name == b"set-cookie"]
    assert cookies == [b"a=1; path=/", b"b=2"]
    with pytest.raises(InvalidResponse):
        response_head(start, "GET", CORS, RAY)


def test_a_line_may_not_smuggle_a_header_in():
    start = ToServerResponseStart(200, {"a": "1\r\nset-cookie: x"}, None, False)
    with pytest.raises(InvalidResponse):
        response_head(start, "GET", CORS, RAY, multi_headers=True)


def test_the_length_of_a_stream_is_what_was_announced_or_unknown():
    assert head(headers={"content-length": "7"}, stream=True).length == 7
    assert head(stream=True).length is None
    for text in ("x", "-1", "1, 1", "", "9" * 19):
        with pytest.raises(InvalidResponse):
            head(headers={"content-length": text}, stream=True)


def stream(*, window_bytes=None, length=None, first_index=None):
    return Stream(window_bytes=window_bytes, length=length, first_index=first_index)


def test_a_runner_may_send_as_much_more_as_the_client_has_taken_in_halves_of_its_window():
    flow = stream(window_bytes=100)
    assert [flow.taken(size) for size in (49, 1, 0, 120, 30)] == [0, 1, 0, 2, 1]
    assert stream().taken(10**9) == 0


def test_a_part_that_comes_again_is_known_and_one_that_is_missing_too():
    flow = stream(first_index=65_534)
    assert [flow.is_new(index) for index in (65_535, 65_535, 65_534, 0, 1, 0)] == [
        *(True, False, False, True, True, False)
    ]
    with pytest.raises(TunnelBroken):
        flow.is_new(3)
    assert [stream().is_new(index) for index in (0, 0, 7)] == [True, True, True]


def test_a_stream_is_as_long_as_announced():
    flow = stream(length=3)
    flow.arrived(2, finish=False)
    flow.arrived(1, finish=True)
    with pytest.raises(InvalidResponse):
        stream(length=3).arrived(4, finish=False)
    with pytest.raises(InvalidResponse):
        stream(length=3).arrived(2, finish=True)
    stream().arrived(10**9, finish=True)
