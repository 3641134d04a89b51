"""What is sent to a serverless endpoint, and how its answer is judged."""

import base64

import pytest

from runners.start_request import (
    BODY_EXCERPT,
    StartFailed,
    check_answer,
    connection_error,
    read_init,
    start_headers,
    start_url,
)

GIVEN = {
    "endpoint": "http://127.0.0.1:6420",
    "slots": 3,
    "pool": "p",
    "namespace": "n",
    "token": "",
    "version": "0.1",
}
OWN = {
    "x-rivet-endpoint": "http://127.0.0.1:6420/",
    "x-rivet-total-slots": "3",
    "x-rivet-runner-name": "p",
    "x-rivet-namespace-name": "n",
    "x-rivet-namespace-id": "n",
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "RivetEngine/0.1",
}


@pytest.mark.parametrize("url", ["http://a/b", "http://a/b/", "http://a/b//"])
def test_the_address_has_one_slash(url):
    assert start_url(url) == "http://a/b/start"


def test_the_headers_are_those_of_the_protocol():
    assert start_headers({}, **GIVEN) == OWN


def test_the_token_is_told_if_there_is_one():
    assert start_headers({}, **GIVEN | {"token": "t"}) == OWN | {"x-rivet-token": "t"}


def test_configured_headers_are_sent_too_but_never_instead_of_ours():
    configured = {"Authorization": "x", "X-Rivet-Endpoint": "http://evil/", "Accept": "*/*"}
    assert start_headers(configured, **GIVEN) == OWN | {"authorization": "x"}


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream ;x"]
)
def test_an_event_stream_is_accepted(content_type):
    check_answer(200, content_type, "")


@pytest.mark.parametrize(
    ("status", "content_type", "body", "error"),
    [
        (500, "text/event-stream", "oh", {"serverless_http_error": {"status_code": 500, "body": "oh"}}),
        (204, "text/event-stream", "", {"serverless_http_error": {"status_code": 204, "body": ""}}),
        (
            404,
            "",
            "x" * 1000,
            {"serverless_http_error": {"status_code": 404, "body": "x" * BODY_EXCERPT}},
        ),
        (200, "text/html", "", "expected Content-Type header to be text/event-stream, received text/html"),
        (200, "", "", "expected Content-Type header to be text/event-stream, received none"),
        (200, "text/event-streams", "", "expected Content-Type header to be text/event-stream, received text/"),
    ],
)
def test_any_other_answer_is_a_failure_with_its_reason(status, content_type, body, error):
    with pytest.raises(StartFailed) as failed:
        check_answer(status, content_type, body)
    assert failed.value.status == status
    if isinstance(error, str):
        assert failed.value.error["serverless_connection_error"]["message"].startswith(error)
    else:
        assert failed.value.error == error


@pytest.mark.parametrize(
    ("payload", "runner_id"),
    [("BwAABHJ1bjEHAA==", "run1"), ("BQAABHJ1bjEFAA==", "run1"), (" BwAABHJ1bjEHAA==\n", "run1")],
)
def test_the_init_payload_names_the_runner(payload, runner_id):
    assert read_init(payload) == runner_id


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("not base64!", "invalid base64 message"),
        ("BwAABHJ1bjEHAA", "invalid base64 message"),
        ("ä", "invalid base64 message"),
        ("", "invalid payload"),
        (base64.b64encode(b"\x63\0\0").decode(), "invalid payload"),
        (base64.b64encode(b"\x07\0\x01").decode(), "invalid payload"),
        ("A" * 1000, "invalid payload"),
    ],
)
def test_a_payload_that_is_none_is_a_failure_that_shows_it(data, message):
    with pytest.raises(StartFailed) as failed:
        read_init(data)
    shown = failed.value.error["serverless_invalid_sse_payload"]
    assert shown == {"message": message, "raw_payload": data[:BODY_EXCERPT]}


def test_an_endpoint_out_of_reach_is_named_by_its_error():
    failure = connection_error(ConnectionRefusedError("no"))
    assert failure.error == {"serverless_connection_error": {"message": "ConnectionRefusedError: no"}}
    assert connection_error(TimeoutError()).error["serverless_connection_error"]["message"] == "TimeoutError"
    assert (
        len(connection_error(OSError("x" * 1000)).error["serverless_connection_error"]["message"]) == BODY_EXCERPT
    )
