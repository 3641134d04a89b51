"""What an engine may expect of any runner, one case each: the pitfalls of PROTOCOL §0 that are a runner's.

`expected` is right; `different` is what implementations are known to do instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runners.protocol.messages import ToServerWebSocketMessage, ToServerWebSocketOpen
from tests.conformance.probes import (
    Probe,
    alarm,
    bad_frame,
    body_of_a_get,
    changed_runner_id,
    eviction,
    foreign_stop,
    gap_in_a_hibernatable_websocket,
    introduction,
    largest_body,
    later_index,
    leaving,
    ping_while_busy,
    pong_after_replay,
    prompt_acks,
    repeated_start,
    replay,
    same_key,
    stop_code_of_sleep,
    streamed_body,
    unknown_actor,
    websocket,
)
from tests.support.kinds import KINDS, NPM


@dataclass(frozen=True)
class Case:
    """One expectation. `instead`: the difference in words; `alone`: the runner does not outlive it."""

    says: str
    pitfall: str
    probe: Probe
    expected: object
    different: Mapping[str, object] = field(default_factory=dict)
    instead: str = ""
    alone: bool = False

    def __post_init__(self) -> None:
        assert bool(self.different) == bool(self.instead), "a known difference is told in words"

    def row(self) -> str:
        """Return the case as a row of the table in docs/protocol.md."""
        cells = [self.instead if kind in self.different else "yes" for kind in KINDS]
        return f"| {self.says} | {self.pitfall} | {' | '.join(cells)} |"

    def outcome(self, kind: str) -> object:
        """Return what is to be seen of an implementation."""
        return self.different.get(kind, self.expected)


def _npm(seen: object) -> Mapping[str, object]:
    return dict.fromkeys(NPM, seen)


CASES = {
    "init": Case(
        "introduces itself at once, in the version its address names, offering `rivet`",
        "1, 3",
        introduction,
        ("ToServerInit", True, True),
    ),
    "ping": Case("answers pings while an actor is busy", "5", ping_while_busy, (-5, True)),
    "dedupe": Case(
        "starts an actor once however often it is told", "7", repeated_start, 1, _npm(2), "starts it again"
    ),
    "acks": Case("acknowledges commands promptly", "8", prompt_acks, True, _npm(False), "every five minutes"),
    "index": Case("takes a start of any index, and counts its events from 0", "21", later_index, (3, 0)),
    "foreign-stop": Case(
        "ignores the stop of another generation, and of a stranger", "§4.3", foreign_stop, (200, 1, 0)
    ),
    "sleep": Case(
        "serves until its stop comes after it has asked to sleep, and then stops with `OK`",
        "11, §4.11",
        stop_code_of_sleep,
        (2, "OK"),
        {"npm-2.2.1": (2, "ERROR")},
        "with `ERROR`",
    ),
    "stream": Case(
        "answers a request whose body is streamed", "12", streamed_body, 200, _npm(None), "never answers"
    ),
    "get-body": Case("answers a GET that has a body", "13", body_of_a_get, 200, _npm(500), "500"),
    "large": Case("takes a body of 20 MiB", "20", largest_body, (200, True)),
    "unknown-actor": Case(
        "answers a request for an actor it does not have",
        "14",
        unknown_actor,
        (503, "runner.actor_not_found"),
        _npm(None),
        "says nothing",
    ),
    "alarm": Case("sends an alarm as an event with the next index", "22", alarm, (1, True)),
    "websocket": Case(
        "accepts a WebSocket and keeps text apart from data",
        "§5.4",
        websocket,
        (ToServerWebSocketOpen(can_hibernate=False), ToServerWebSocketMessage(b"hello", binary=False)),
    ),
    "gap": Case(
        "closes a hibernatable WebSocket at a gap",
        "15",
        gap_in_a_hibernatable_websocket,
        (1008, "ws.message_index_skip"),
    ),
    "replay": Case(
        "says again after a reconnect what was not acknowledged, in order", "9", replay, [[0, 1, 2], [2]]
    ),
    "pong-after-replay": Case("answers a ping after all that it says again", "§4.5", pong_after_replay, 1),
    "key": Case("comes back with the key it had", "4", same_key, True),
    "new-id": Case("stops its actors when the engine gives it another id", "10", changed_runner_id, (True, 0)),
    "trailing": Case(
        "goes on after a frame with a trailing byte",
        "2",
        bad_frame(b"\x05" + bytes(8) + b"\0"),
        "goes on",
        _npm("dies"),
        "the process dies",
        alone=True,
    ),
    "tag": Case(
        "goes on after a message it does not know",
        "2",
        bad_frame(b"\x63"),
        "goes on",
        _npm("dies"),
        "the process dies",
        alone=True,
    ),
    "text": Case(
        "goes on after a text frame",
        "2",
        bad_frame("text"),
        "goes on",
        _npm("dies"),
        "the process dies",
        alone=True,
    ),
    "leaving": Case(
        "says that it goes, serves until its actors are stopped, and hangs up",
        "§4.9",
        leaving,
        (1000, "pegboard.runner_shutdown"),
        alone=True,
    ),
    "eviction": Case("never comes back after `ws.eviction`", "4", eviction, True, alone=True),
}
