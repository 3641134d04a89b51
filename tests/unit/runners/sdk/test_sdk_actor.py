import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from runners.sdk import Actor, Context, Registry, Request, Response
from runners.sdk.exchange import wire_start
from runners.sdk.serverless import StartRefused, StartRequest


class Wishes:
    def __init__(self) -> None:
        self.alarms: list[int | None] = []

    def sleep(self) -> None: ...

    def destroy(self) -> None: ...

    def set_alarm(self, alarm_ts_ms: int | None) -> None:
        self.alarms.append(alarm_ts_ms)


def context(wishes: Wishes) -> Context:
    home = SimpleNamespace(has_schedule=False)
    return Context("a1", "counter", None, 0, None, "run1", home, wishes)


def test_the_sdk_is_used_without_django_and_without_the_engines_libraries():
    script = (
        "import sys, runners.sdk; "
        "sys.exit(bool({m.split('.')[0] for m in sys.modules} & {'django', 'celery', 'redis', 'channels'}))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


OUTSIDE_DJANGO = """
import asyncio
from runners.sdk import Response, SdkError
from runners.sdk.testing import LocalEngine

async def fetch(ctx, request):
    try:
        ctx.atomic()
    except SdkError as error:
        return Response.text(str(error))

async def main():
    async with LocalEngine({"actor": fetch}) as engine:
        print((await engine.actor("actor").fetch()).text)

asyncio.run(main())
"""


def test_a_fenced_transaction_outside_a_django_project_says_what_it_needs():
    command = [sys.executable, "-c", OUTSIDE_DJANGO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "INSTALLED_APPS" in done.stdout


class TestAlarm:
    @pytest.mark.parametrize(
        ("when", "alarm_ts_ms"),
        [
            (datetime(1970, 1, 1, tzinfo=UTC), 0),
            (datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), 1500),
            (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
            (datetime(1970, 1, 1, 0, 0, 1, 500_001, tzinfo=UTC), 1501),  # never early
            (None, None),
        ],
    )
    def test_it_is_told_in_milliseconds_since_the_epoch(self, when, alarm_ts_ms):
        wishes = Wishes()
        context(wishes).set_alarm(when)
        assert wishes.alarms == [alarm_ts_ms]

    def test_a_time_without_a_zone_is_refused(self):
        with pytest.raises(ValueError, match="zone"):
            context(Wishes()).set_alarm(datetime(2030, 1, 1))


class TestRequest:
    def test_the_query_is_split_off_and_left_as_it_is(self):
        request = Request.of_target("GET", "/a%20b?x=1&x=2&y=%C3%A9&z=", {"host": "h"}, None)
        assert (request.path, request.query) == ("/a%20b", "x=1&x=2&y=%C3%A9&z=")
        assert request.params == {"x": "2", "y": "é", "z": ""}

    async def test_the_body_is_read_as_text_or_json(self):
        request = Request("POST", "/", body='{"a": "é"}'.encode())
        assert await request.text() == '{"a": "é"}'
        assert await request.json() == {"a": "é"}


class TestResponse:
    @pytest.mark.parametrize(
        ("response", "status", "headers", "body"),
        [
            (Response(), 200, {}, None),
            (Response(204), 204, {}, None),
            (Response(body=b"\x00"), 200, {"content-length": "1"}, b"\x00"),
            (
                Response.text("é", 404, {"X-A": "1"}),
                404,
                {"x-a": "1", "content-type": "text/plain; charset=utf-8", "content-length": "2"},
                "é".encode(),
            ),
            (
                Response(200, {"Content-Type": "text/html", "Content-Length": "99"}, "<p>"),
                200,
                {"content-type": "text/html", "content-length": "3"},
                b"<p>",
            ),
            (
                Response.json({"a": "é"}),
                200,
                {"content-type": "application/json", "content-length": "11"},
                '{"a": "é"}'.encode(),
            ),
        ],
    )
    def test_it_is_sent_whole_with_its_length(self, response, status, headers, body):
        wire = wire_start(response)
        assert (wire.status, wire.headers, wire.body, wire.stream) == (status, headers, body, False)

    @pytest.mark.parametrize(
        ("status", "headers"),
        [(99, {}), (101, {}), (600, {}), (200, {"a b": "c"}), (200, {"": "c"}), (200, {"a": "b\r\nc: d"})],
    )
    def test_what_http_cannot_carry_is_refused(self, status, headers):
        with pytest.raises(ValueError, match=r"status|header"):
            Response(status, headers)

    def test_a_repeated_header_is_sent_as_lines(self):
        response = Response(headers={"Set-Cookie": ["a=1", "b=2"], "x-one": ["1"]})
        assert wire_start(response).headers == {"set-cookie": "a=1\nb=2", "x-one": "1"}

    def test_one_bad_value_of_a_repeated_header_is_refused(self):
        with pytest.raises(ValueError, match="header"):
            Response(headers={"set-cookie": ["a=1", "b=2\nx: y"]})


class TestRegistry:
    async def test_classes_and_functions_are_actors(self):
        class Counter(Actor): ...

        async def hello(ctx, request):
            return Response.text("hello")

        registry = Registry({"counter": Counter, "hello": hello})
        assert registry.names == ("counter", "hello")
        assert isinstance(registry.create("counter"), Counter)
        assert (await registry.create("hello").fetch(None, None)).body == "hello"

    def test_every_life_has_an_object_of_its_own(self):
        registry = Registry({"counter": Actor})
        assert registry.create("counter") is not registry.create("counter")

    @pytest.mark.parametrize("actor", [dict, "Counter", None], ids=["class", "name", "nothing"])
    def test_what_is_no_actor_is_refused(self, actor):
        with pytest.raises(TypeError, match="'counter' must be a subclass"):
            Registry({"counter": actor})

    def test_an_object_is_refused(self):
        with pytest.raises(TypeError, match="'counter' must be the class Actor itself"):
            Registry({"counter": Actor()})

    def test_a_class_whose_objects_need_arguments_is_refused(self):
        class Counter(Actor):
            def __init__(self, step): ...

        with pytest.raises(TypeError, match=r"'counter' must be made without arguments: .*'step'"):
            Registry({"counter": Counter})


START = {
    "x-rivet-endpoint": "http://127.0.0.1:6420/",
    "x-rivet-total-slots": "10",
    "x-rivet-runner-name": "counter",
    "x-rivet-namespace-name": "default",
}


class TestStartRequest:
    def test_it_is_read_from_the_headers(self):
        start = StartRequest.of_headers(START | {"x-rivet-token": "s3cret"})
        assert start == StartRequest("http://127.0.0.1:6420/", "default", "counter", 10, "s3cret")
        assert StartRequest.of_headers(START).token is None

    @pytest.mark.parametrize("header", START)
    @pytest.mark.parametrize("value", [None, "", " "])
    def test_a_missing_header_is_named(self, header, value):
        headers = {name: text for name, text in (START | {header: value}).items() if text is not None}
        with pytest.raises(StartRefused) as refused:
            StartRequest.of_headers(headers)
        assert refused.value.header == header

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            *[("x-rivet-total-slots", text) for text in ("0", "-1", "+1", "1.5", "ten", "²", "1_0", "4294967296")],
            *[("x-rivet-endpoint", text) for text in ("127.0.0.1:6420", "ftp://x", "http://")],
            ("x-rivet-token", "a b"),
        ],
    )
    def test_an_unusable_header_is_named(self, header, value):
        with pytest.raises(StartRefused) as refused:
            StartRequest.of_headers(START | {header: value})
        assert refused.value.header == header
