"""One runner socket, without the socket: the request to connect, events and their acks, the command log.

Does no I/O and has no clock. `consumers.py` and `conversation.py` are the shell around it.
"""

import re
from collections.abc import Collection, Iterable, KeysView
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from orchestrator.errors import OrchestratorError
from orchestrator.ids import is_id
from runners.channel import Life
from runners.errors import RunnerProtocolError
from runners.protocol import codec
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    Event,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    StopCode,
    ToServerInit,
)


class SocketError(OrchestratorError):
    """A runner's socket is closed for a reason of the protocol (PROTOCOL §2.4)."""

    group = "ws"


class InvalidUrl(SocketError):
    """The URL of the socket lacks a parameter or has a bad one."""

    code = "invalid_url"


class InvalidInitialPacket(SocketError):
    """The first frame is not a ToServerInit."""

    code = "invalid_initial_packet"


class InitTimeout(SocketError):
    """The first frame did not come in time."""

    code = "timed_out_waiting_for_init"


class TokenMissing(OrchestratorError):
    """The engine has a token and the runner offers none."""

    group, code, status = "guard", "missing_header", 400


class WrongHost(OrchestratorError):
    """The host is not one where runners are to connect."""

    group, code, status = "guard", "must_use_regional_host", 400


class PingTimeout(OrchestratorError):
    """The runner does not answer pings."""


class NotReading(OrchestratorError):
    """The runner does not read what it is sent."""


class GoingAway(SocketError):
    """This process of the engine ends; the runner is to connect again."""

    code = "going_away"


class Evicted(SocketError):
    """The runner is to end: a newer socket has its identity, or it has drained."""

    code, close_code = "eviction", 1000


@dataclass(frozen=True, slots=True)
class Address:
    """What the URL of a runner's socket says."""

    protocol_version: int
    namespace: str
    runner_key: str


MAX_NAME_BYTES = 1024
"""Of a runner's key, a pool's name and an actor's: together they must fit into an entry of an index."""
MAX_INIT_BYTES = 1024 * 1024
MAX_ACTOR_NAMES = 1000
"""An init with more is refused: its names are stored while everybody waits for the database."""
MAX_MESSAGE = 1000
"""Characters kept of what an actor says it died of."""
MAX_UNDER_WAY = 10_000
"""Events of one runner that may wait for their decision; meanwhile no more are taken."""

_DECIMAL = re.compile(r"0*([0-9]{1,5})")
_PORT = re.compile(r":[0-9]*\Z")
_TOKEN = "rivet_token."


def parse_query(query: bytes) -> Address:
    """Return what the query string of `/runners/connect` says (PROTOCOL §2.1).

    Raises:
        InvalidUrl: a parameter is missing or too long, the version is no decimal number of 16 bits, or a text
            has a NUL, which no database keeps.
    """
    values = dict(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True))
    version = _DECIMAL.fullmatch(values.get("protocol_version", ""))
    if version is None or int(version[1]) >= 2**16:
        raise InvalidUrl(parameter="protocol_version")
    for name in ("namespace", "runner_key"):
        if not _is_name(values.get(name, "")):
            raise InvalidUrl(parameter=name)
    return Address(int(version[1]), values["namespace"], values["runner_key"])


def offered_token(offers: Iterable[str]) -> str | None:
    """Return the token among the subprotocols a runner offers, None if there is none (PROTOCOL §2.2)."""
    return next((offer.removeprefix(_TOKEN) for offer in offers if offer.startswith(_TOKEN)), None)


def _is_name(text: str) -> bool:
    return 0 < len(text.encode()) <= MAX_NAME_BYTES and "\0" not in text


def check_host(host: str, valid: Collection[str], datacenter: str) -> None:
    """Let in a runner that has connected to one of the valid hosts, or to any if none are named (PROTOCOL §2.2).

    A port in `host` counts only where the valid one has a port too.

    Raises:
        WrongHost: it is another host.
    """
    name = host.lower()
    if valid and name not in valid and _PORT.sub("", name) not in valid:
        raise WrongHost(host=host, datacenter=datacenter, valid_hosts=sorted(valid))


def read_init(frame: bytes | None, version: int) -> ToServerInit:
    """Return what the first frame says; None stands for a text frame.

    Raises:
        RunnerProtocolError: it is text, empty or undecodable, or nobody knows the version; or it is an init
            with more than the database can keep.
        InvalidInitialPacket: it is another message.
    """
    if frame and len(frame) > MAX_INIT_BYTES:
        raise RunnerProtocolError(f"first frame of {len(frame)} bytes, more than {MAX_INIT_BYTES}")
    init = codec.decode_to_server(frame or b"", version)
    if not isinstance(init, ToServerInit):
        raise InvalidInitialPacket
    if not _is_name(init.name):
        raise RunnerProtocolError(f"the runner's name is empty, has a NUL or more than {MAX_NAME_BYTES} bytes")
    names = init.prepopulate_actor_names
    if names is None:
        return init
    if len(names) > MAX_ACTOR_NAMES:
        raise RunnerProtocolError(f"{len(names)} actor names, more than {MAX_ACTOR_NAMES}")
    return replace(init, prepopulate_actor_names={n: names[n] for n in names if _is_name(n)})


MOST_DOUBLINGS = 4
"""An event that was said again is left alone for twice as long before the next time, but no more than 16 times as
long as at first: while workers are late it is not lost, and more of the same would make them later."""

EventKey = tuple[str, int, int]
"""Actor id, generation, index."""


@dataclass(frozen=True, slots=True)
class _Posted:
    """An event that was passed on, last at `at`."""

    signal: dict[str, Any]
    at: datetime
    times: int = 1

    def is_late(self, patience: timedelta, now: datetime) -> bool:
        return now - self.at > patience * (1 << min(self.times - 1, MOST_DOUBLINGS))

    def again(self, now: datetime) -> "_Posted":
        return _Posted(self.signal, now, self.times + 1)


@dataclass(slots=True)
class Events:
    """The events of one connection that are not yet dealt with, and which acks the runner is due.

    The last event of each actor that lives is never acknowledged. The runner therefore keeps it and repeats
    it after every init, which is how a runner that has an actor is told from one that has forgotten it.

    An actor takes an event of a lower number than its last one for a repetition: overtaken, it would be lost.
    So each names the one before it (`after`), without which it is not decided, but waits to be said again. And
    of a returned runner nothing is passed on until it has repeated itself: npm clients say what is new as soon
    as they are connected, before the init and so before what the former connection may have lost.

    npm clients do not compare generations: they let an ack prune whatever the actor's present life has said.
    So nothing is acknowledged of a generation once the start of a later one has been sent (PROTOCOL §4.5).
    """

    runner_id: str
    silent_since: datetime | None = None  # what is heard may have been said then: a returned runner repeats itself
    _early: list[EventWrapper] = field(default_factory=list)  # heard before it has
    _last: dict[Life, int] = field(default_factory=dict)  # greatest index of each life that is not over
    _newest: dict[str, int] = field(default_factory=dict)  # newest generation of each actor spoken of or started
    _waiting: dict[EventKey, _Posted] = field(default_factory=dict)
    _acks: dict[str, tuple[int, int]] = field(default_factory=dict)  # by actor: generation, index

    @property
    def room(self) -> bool:
        """Whether more may be heard: not while too many events wait for their decision."""
        return len(self._waiting) < MAX_UNDER_WAY

    @property
    def seen(self) -> KeysView[Life]:
        """The lives spoken of here that are not yet over."""
        return self._last.keys()

    def start(self, actor_id: str, generation: int) -> None:
        """Take note of a start that is sent now."""
        self._outdate(actor_id, generation)

    def generation(self, actor_id: str) -> int | None:
        """Return the newest generation of an actor that this connection knows of; None if none that lives."""
        return self._newest.get(actor_id)

    def is_followed(self, life: Life) -> bool:
        """Say whether this connection knows of a later life of the actor."""
        return life[1] < self._newest.get(life[0], 0)

    def hear(self, events: Iterable[EventWrapper], now: datetime) -> list[tuple[str, dict[str, Any]]]:
        """Return (actor id, signal) for each event that is not under way already.

        Of a returned runner that is nothing, until `returned`, unless it says more than can be kept.
        """
        if self.silent_since is None:
            return self._take(events, now)
        for event in events:
            if is_id(event.checkpoint.actor_id):
                self._outdate(event.checkpoint.actor_id, event.checkpoint.generation)
        self._early += events
        return self._take_early(now) if len(self._early) >= MAX_UNDER_WAY else []

    def returned(self, now: datetime) -> list[tuple[str, dict[str, Any]]]:
        """Return what was heard of a runner that has now repeated all it had to, in order."""
        letters = self._take_early(now)
        self.silent_since = None
        return letters

    def _take_early(self, now: datetime) -> list[tuple[str, dict[str, Any]]]:
        early, self._early = self._early, []
        return self._take(sorted(early, key=_place), now)

    def _take(self, events: Iterable[EventWrapper], now: datetime) -> list[tuple[str, dict[str, Any]]]:
        letters = []
        for event in events:
            checkpoint = event.checkpoint
            key = (checkpoint.actor_id, checkpoint.generation, checkpoint.index)
            if not is_id(checkpoint.actor_id) or key in self._waiting:
                continue
            signal = self._signal(event, self.silent_since or now)
            self._last[key[:2]] = max(key[2], self._last.get(key[:2], key[2]))
            self._outdate(*key[:2])
            self._waiting[key] = _Posted(signal, now)
            letters.append((checkpoint.actor_id, signal))
        return letters

    def repeat(self, patience: timedelta, now: datetime) -> list[tuple[str, dict[str, Any]]]:
        """Return again what was passed on longer ago and is still not dealt with, and what follows it."""
        late = {key[:2] for key, posted in self._waiting.items() if posted.is_late(patience, now)}
        again = {key: posted.again(now) for key, posted in self._waiting.items() if key[:2] in late}
        self._waiting |= again
        return [(key[0], posted.signal) for key, posted in again.items()]

    def processed(self, events: Iterable[tuple[str, int, int, bool]]) -> None:
        """Take note of events that were committed; the last says whether the generation is over.

        For a runner that does not hold the actor every generation is: it has nothing to repeat of it.
        """
        for actor_id, generation, index, over in events:
            self._waiting.pop((actor_id, generation, index), None)
            last = index if over else index - 1
            if last >= 0 and generation >= self._newest.get(actor_id, generation):
                self._acks[actor_id] = max((generation, last), self._acks.get(actor_id, (-1, -1)))
            if over:
                self._last.pop((actor_id, generation), None)
                if self._newest.get(actor_id) == generation:
                    del self._newest[actor_id]

    def take_acks(self) -> list[ActorCheckpoint]:
        """Return the acks to send, once each."""
        acks = [ActorCheckpoint(actor_id, *place) for actor_id, place in self._acks.items()]
        self._acks.clear()
        return acks

    def _outdate(self, actor_id: str, generation: int) -> None:
        """Let no ack of an earlier generation go out any more."""
        self._newest[actor_id] = max(generation, self._newest.get(actor_id, -1))
        if actor_id in self._acks and self._acks[actor_id][0] < generation:
            del self._acks[actor_id]

    def _signal(self, event: EventWrapper, heard_at: datetime) -> dict[str, Any]:
        """Return the event as a signal of the actor workflow (`actors/codec.py`)."""
        place = event.checkpoint
        signal = {
            "t": "from_runner",
            "runner_id": self.runner_id,
            "generation": place.generation,
            "index": place.index,
            "report": _report(event.inner),
            "heard_at": heard_at.isoformat(),
        }
        last = self._last.get((place.actor_id, place.generation))
        return signal if last is None or last >= place.index else signal | {"after": last}


def _place(event: EventWrapper) -> tuple[int, int]:
    return event.checkpoint.generation, event.checkpoint.index


def _report(event: Event) -> dict[str, Any]:
    match event:
        case EventActorStateUpdate(state):
            match state:
                case ActorStateRunning():
                    return {"t": "running"}
                case ActorStateStopped(code, message):
                    kept = None if message is None else message[:MAX_MESSAGE].replace("\0", "\ufffd")
                    return {"t": "stopped", "ok": code is StopCode.OK, "message": kept}
        case EventActorIntent(intent):
            match intent:
                case ActorIntentSleep():
                    return {"t": "sleep_intent"}
                case ActorIntentStop():
                    return {"t": "stop_intent"}
        case EventActorSetAlarm(at_ms):
            return {"t": "alarm", "at_ms": at_ms}


@dataclass(slots=True)
class CommandCursor:
    """How far the runner's command log has been sent over this connection.

    On a reused runner nothing is sent until it has spoken (`held`): what it repeats after its init shows
    which starts it has had. It must not get those again (PROTOCOL §4.4).
    """

    held: bool
    sent_seq: int = 0
    heard_seq: int = 0  # the newest entry of the log that was heard of

    @property
    def behind(self) -> bool:
        """Whether there is something to send that has to be read from the log."""
        return not self.held and self.heard_seq > self.sent_seq

    def next_is(self, seq: int) -> bool:
        """Say whether this entry of the log may be sent now, and if so count it as sent."""
        self.heard_seq = max(self.heard_seq, seq)
        if self.held or seq != self.sent_seq + 1:
            return False
        self.sent_seq = seq
        return True

    def skip_to(self, seq: int) -> None:
        """Count everything up to an entry as sent, or as spent."""
        self.sent_seq = max(self.sent_seq, seq)
