"""Which actor a path or a header names."""

import pytest

from gateway.errors import InvalidHeader, MissingHeader, NoRoute, QueryInvalidParams
from gateway.query import ActorQuery
from gateway.routing import Destination, Target, destination, request_target, socket_target, without_token
from orchestrator.errors import PathNotFound


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/gateway/abc", "", Target("abc", "/")),
        ("/gateway/abc/", "", Target("abc", "/")),
        ("/gateway/abc/x/y", "", Target("abc", "/x/y")),
        ("/gateway/abc/x/", "", Target("abc", "/x/")),
        ("/gateway/abc", "a=1&a=%20", Target("abc", "/?a=1&a=%20")),
        ("/gateway/abc/a%2Fb%20c", "q=%C3%A9", Target("abc", "/a%2Fb%20c?q=%C3%A9")),
        ("/gateway/a%62c@t%40k/x", "", Target("abc", "/x", "t@k")),
        ("/gateway/abc@/x", "", Target("abc", "/x", "")),
        ("/gateway/abc/x", "a=1&rvt-skip-ready-wait=1&b", Target("abc", "/x?a=1&b", None, True)),
        ("/gateway/abc/x", "rvt-skip-ready-wait=false", Target("abc", "/x")),
        ("/gateway/abc/x", "a=rvt-key", Target("abc", "/x?a=rvt-key")),
        ("/gateway/abc/x#y", "a=1", Target("abc", "/x")),
        ("/gateway/abc/x", "a=1#y", Target("abc", "/x?a=1")),
        (
            "/gateway/na%6De/x",
            "a=%20&rvt-namespace=ns&rvt-method=get&b",
            Target(ActorQuery("ns", "name", "/"), "/x?a=%20&b"),
        ),
        (
            "/gateway/name",
            "rvt-namespace=ns&rvt-method=get&rvt-token=t&rvt-skip-ready-wait=true",
            Target(ActorQuery("ns", "name", "/"), "/", "t", True),
        ),
    ],
)
def test_a_path_names_the_actor_and_what_it_shall_see(path, query, expected):
    assert request_target(path, query, {}) == expected


@pytest.mark.parametrize("path", ["/gateway", "/gateway/", "/gateway//x", "/gateway/abc//x", "/gateway/abc/x//"])
def test_a_path_without_an_actor_or_with_a_double_slash_is_no_gateway_path(path):
    with pytest.raises(PathNotFound):
        request_target(path, "", {})


def test_headers_name_the_actor_and_it_sees_the_whole_path():
    headers = {"x-rivet-target": "actor", "x-rivet-actor": "abc", "x-rivet-token": "t"}
    assert request_target("/request/x", "a=1", headers) == Target("abc", "/request/x?a=1", "t")
    assert request_target("/request", "", headers) == Target("abc", "/request", "t")


@pytest.mark.parametrize("path", ["/", "/requests", "/x/request"])
def test_by_header_only_paths_under_request_are_routed(path):
    with pytest.raises(NoRoute):
        request_target(path, "", {"x-rivet-target": "actor", "x-rivet-actor": "abc"})


@pytest.mark.parametrize("headers", [{}, {"x-rivet-target": "elsewhere"}])
def test_by_header_only_the_target_actor_is_routed(headers):
    with pytest.raises(NoRoute):
        request_target("/request", "", headers | {"x-rivet-actor": "abc"})


def test_a_target_without_an_actor_is_refused():
    with pytest.raises(MissingHeader):
        request_target("/request", "", {"x-rivet-target": "actor"})


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("/gateway/abc", None, Destination.ACTOR),
        ("/gateway", "runner", Destination.ACTOR),
        ("/gatewayx", None, Destination.API),
        ("/runners/connect", None, Destination.RUNNER),
        ("/runners/connect/", "actor", Destination.RUNNER),
        ("/runners", None, Destination.API),
        ("/request", "actor", Destination.ACTOR),
        ("/x", "runner", Destination.RUNNER),
        ("/actors", "api-public", Destination.API),
    ],
)
def test_paths_win_over_targets(path, target, expected):
    assert destination(path, target) is expected


def test_an_unknown_target_has_no_route():
    with pytest.raises(NoRoute):
        destination("/actors", "elsewhere")


def test_a_token_may_come_in_a_header_and_the_one_in_the_path_wins():
    headers = {"x-rivet-token": "header"}
    assert request_target("/gateway/abc", "", headers).token == "header"
    assert request_target("/gateway/abc@path", "", headers).token == "path"


@pytest.mark.parametrize(("text", "wanted"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_header_may_ask_not_to_wait(text, wanted):
    assert request_target("/gateway/abc", "", {"x-rivet-skip-ready-wait": text}).skip_ready_wait is wanted


@pytest.mark.parametrize("text", ["", "yes", "TRUE"])
def test_a_header_that_asks_in_other_words_is_refused(text):
    with pytest.raises(InvalidHeader):
        request_target("/gateway/abc", "", {"x-rivet-skip-ready-wait": text})
    with pytest.raises((InvalidHeader, QueryInvalidParams)):
        request_target("/gateway/abc", f"rvt-skip-ready-wait={text}", {})


def test_the_actor_sees_what_subprotocols_are_offered_but_no_token():
    offered = (b"sec-websocket-protocol", b"rivet, rivet_token.t,rivet_encoding.json")
    kept = (b"sec-websocket-protocol", b"rivet, rivet_encoding.json")
    assert without_token([(b"a", b"rivet_token.x"), offered]) == [(b"a", b"rivet_token.x"), kept]
    assert without_token([kept]) == [kept]


def test_a_websocket_is_addressed_by_its_path_or_its_subprotocols():
    offers = ["rivet", "rivet_target.actor", "rivet_actor.a%2Fb", "rivet_token.t", "rivet_skip_ready_wait"]
    assert socket_target("/any", "a=1", {}, offers) == Target("a/b", "/any?a=1", "t", True)
    assert socket_target("/gateway/abc/x", "", {}, offers) == Target("abc", "/x", "t", True)
    assert socket_target("/gateway/abc@k", "", {}, []) == Target("abc", "/", "k")
    query = "rvt-namespace=ns&rvt-method=get&rvt-key=a,b"
    assert socket_target("/gateway/name", query, {}, []).actor == ActorQuery("ns", "name", "a/b")
    with pytest.raises(NoRoute):
        socket_target("/any", "", {}, ["rivet"])
    with pytest.raises(MissingHeader):
        socket_target("/any", "", {}, ["rivet_target.actor"])
