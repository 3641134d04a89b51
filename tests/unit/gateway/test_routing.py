"""Which actor a path or a header names."""

import pytest

from gateway.errors import MissingHeader, NoRoute
from gateway.routing import ActorTarget, Destination, actor_target, destination
from orchestrator.errors import PathNotFound


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/gateway/abc", "", ActorTarget("abc", "/")),
        ("/gateway/abc/", "", ActorTarget("abc", "/")),
        ("/gateway/abc/x/y", "", ActorTarget("abc", "/x/y")),
        ("/gateway/abc/x/", "", ActorTarget("abc", "/x/")),
        ("/gateway/abc", "a=1&a=%20", ActorTarget("abc", "/?a=1&a=%20")),
        ("/gateway/abc/a%2Fb%20c", "q=%C3%A9", ActorTarget("abc", "/a%2Fb%20c?q=%C3%A9")),
        ("/gateway/a%62c@t%40k/x", "", ActorTarget("abc", "/x", "t@k")),
        ("/gateway/abc@/x", "", ActorTarget("abc", "/x", "")),
    ],
)
def test_a_path_names_the_actor_and_what_it_shall_see(path, query, expected):
    assert actor_target(path, query, {}) == expected


@pytest.mark.parametrize("path", ["/gateway", "/gateway/", "/gateway//x", "/gateway/abc//x", "/gateway/abc/x//"])
def test_a_path_without_an_actor_or_with_a_double_slash_is_no_gateway_path(path):
    with pytest.raises(PathNotFound):
        actor_target(path, "", {})


def test_headers_name_the_actor_and_it_sees_the_whole_path():
    headers = {"x-rivet-target": "actor", "x-rivet-actor": "abc", "x-rivet-token": "t"}
    assert actor_target("/request/x", "a=1", headers) == ActorTarget("abc", "/request/x?a=1", "t")
    assert actor_target("/request", "", headers) == ActorTarget("abc", "/request", "t")


@pytest.mark.parametrize("path", ["/", "/requests", "/x/request"])
def test_by_header_only_paths_under_request_are_routed(path):
    with pytest.raises(NoRoute):
        actor_target(path, "", {"x-rivet-target": "actor", "x-rivet-actor": "abc"})


@pytest.mark.parametrize("headers", [{}, {"x-rivet-target": "elsewhere"}])
def test_by_header_only_the_target_actor_is_routed(headers):
    with pytest.raises(NoRoute):
        actor_target("/request", "", headers | {"x-rivet-actor": "abc"})


def test_a_target_without_an_actor_is_refused():
    with pytest.raises(MissingHeader):
        actor_target("/request", "", {"x-rivet-target": "actor"})


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
