import httpx
import pytest

from runners.sdk.client import EngineError
from runners.sdk.client.calls import (
    Call,
    Wanted,
    gateway_path,
    json_of,
    raise_for_engine,
    websocket_url,
)

NAMESPACE = {"namespace": "ns"}
REFUSED = {"group": "actor", "code": "duplicate_key", "message": "taken", "metadata": {"key": "a"}}


@pytest.mark.parametrize(
    ("wanted", "call"),
    [
        (
            Wanted("ns", None, "counter", "alice", make="if there is none"),
            Call(
                "PUT",
                "/actors",
                NAMESPACE,
                {"name": "counter", "runner_name_selector": "counter", "crash_policy": "sleep", "key": "alice"},
            ),
        ),
        (
            Wanted("ns", None, "counter", None, "pool", b"\x00", "restart", make="always"),
            Call(
                "POST",
                "/actors",
                NAMESPACE,
                {
                    "name": "counter",
                    "runner_name_selector": "pool",
                    "crash_policy": "restart",
                    "input": "AA==",
                },
            ),
        ),
        (
            Wanted("ns", None, "counter", "alice"),
            Call("GET", "/actors", {"namespace": "ns", "name": "counter", "key": "alice"}),
        ),
    ],
)
def test_an_actor_is_found_or_made_by_one_call(wanted, call):
    assert wanted.find() == call


def test_the_id_is_read_from_either_answer():
    made = httpx.Response(200, json={"actor": {"actor_id": "a1"}, "created": True})
    listed = httpx.Response(200, json={"actors": [{"actor_id": "a2"}], "pagination": {}})
    assert Wanted("ns", None, "c", "k", make="if there is none").id_in(made) == "a1"
    assert Wanted("ns", None, "c", "k").id_in(listed) == "a2"


def test_an_actor_that_is_not_there_is_an_error():
    with pytest.raises(EngineError, match="'k'") as raised:
        Wanted("ns", None, "c", "k").id_in(httpx.Response(200, json={"actors": []}))
    assert raised.value.code == "actor.not_found"


def test_a_refusal_is_an_error_with_its_code():
    with pytest.raises(EngineError, match="taken") as raised:
        json_of(httpx.Response(400, json=REFUSED))
    error = raised.value
    assert (error.status, error.code, error.metadata) == (400, "actor.duplicate_key", {"key": "a"})


def test_an_answer_that_is_no_error_of_the_engines_is_one_all_the_same():
    with pytest.raises(EngineError, match="Bad Gateway"):
        json_of(httpx.Response(502, text="<h1>Bad Gateway</h1>"))


def test_an_error_of_the_actor_is_an_answer_and_one_of_the_engine_is_raised():
    raise_for_engine(httpx.Response(500, text="mine"))
    with pytest.raises(EngineError):
        raise_for_engine(httpx.Response(503, headers={"x-rivet-error": "guard.x"}, json=REFUSED))


def test_only_a_name_and_key_may_stand_for_another_actor_later():
    assert Wanted("ns", None, "c", "k", make="if there is none").replaceable
    assert not Wanted("ns", "a1").replaceable
    assert not Wanted("ns", None, "c", "k", make="always").replaceable


def test_paths_and_urls_of_actors():
    assert gateway_path("a/1", "/x?y=%20") == "/gateway/a%2F1/x?y=%20"
    assert websocket_url("https://e.example/base/", "a1", "/ws") == "wss://e.example/base/gateway/a1/ws"
    assert websocket_url("http://e:1", "a1", "/") == "ws://e:1/gateway/a1/"
    with pytest.raises(ValueError, match="slash"):
        gateway_path("a1", "x")
