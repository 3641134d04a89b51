"""Every message of the runner protocol as a frozen value, in the shape of version 7 (PROTOCOL §3.1).

The names are the protocol's and the fields stand in wire order, so a message reads the same whatever the
version of the connection: where an older one puts a fact elsewhere, `codec` moves it. Lists are tuples when
decoded and any sequence when encoded; maps are dicts; an absent option is None; moments are milliseconds
since the Unix epoch. What each field means to runner and engine: PROTOCOL §4 to §7.

The parts of messages stand beside their bytes, in `actors`, `kv` and `tunnel`; all can be had from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runners.protocol.actors import (
    ActorCheckpoint as ActorCheckpoint,
    ActorConfig as ActorConfig,
    ActorIntent as ActorIntent,
    ActorIntentSleep as ActorIntentSleep,
    ActorIntentStop as ActorIntentStop,
    ActorState as ActorState,
    ActorStateRunning as ActorStateRunning,
    ActorStateStopped as ActorStateStopped,
    Command as Command,
    CommandStartActor as CommandStartActor,
    CommandStopActor as CommandStopActor,
    CommandWrapper as CommandWrapper,
    Event as Event,
    EventActorIntent as EventActorIntent,
    EventActorSetAlarm as EventActorSetAlarm,
    EventActorStateUpdate as EventActorStateUpdate,
    EventWrapper as EventWrapper,
    HibernatingRequest as HibernatingRequest,
    StopCode as StopCode,
)
from runners.protocol.kv import (
    KvDeleteRangeRequest as KvDeleteRangeRequest,
    KvDeleteRequest as KvDeleteRequest,
    KvDeleteResponse as KvDeleteResponse,
    KvDropRequest as KvDropRequest,
    KvDropResponse as KvDropResponse,
    KvErrorResponse as KvErrorResponse,
    KvGetRequest as KvGetRequest,
    KvGetResponse as KvGetResponse,
    KvListAllQuery as KvListAllQuery,
    KvListPrefixQuery as KvListPrefixQuery,
    KvListQuery as KvListQuery,
    KvListRangeQuery as KvListRangeQuery,
    KvListRequest as KvListRequest,
    KvListResponse as KvListResponse,
    KvMetadata as KvMetadata,
    KvPutRequest as KvPutRequest,
    KvPutResponse as KvPutResponse,
    KvRequestData as KvRequestData,
    KvResponseData as KvResponseData,
)
from runners.protocol.tunnel import (
    MessageId as MessageId,
    ToClientRequestAbort as ToClientRequestAbort,
    ToClientRequestChunk as ToClientRequestChunk,
    ToClientRequestStart as ToClientRequestStart,
    ToClientTunnelMessage as ToClientTunnelMessage,
    ToClientTunnelMessageKind as ToClientTunnelMessageKind,
    ToClientWebSocketClose as ToClientWebSocketClose,
    ToClientWebSocketMessage as ToClientWebSocketMessage,
    ToClientWebSocketOpen as ToClientWebSocketOpen,
    ToServerResponseAbort as ToServerResponseAbort,
    ToServerResponseChunk as ToServerResponseChunk,
    ToServerResponseStart as ToServerResponseStart,
    ToServerTunnelMessage as ToServerTunnelMessage,
    ToServerTunnelMessageKind as ToServerTunnelMessageKind,
    ToServerWebSocketClose as ToServerWebSocketClose,
    ToServerWebSocketMessage as ToServerWebSocketMessage,
    ToServerWebSocketMessageAck as ToServerWebSocketMessageAck,
    ToServerWebSocketOpen as ToServerWebSocketOpen,
)

# Top level, runner to engine


@dataclass(frozen=True, slots=True)
class ToServerInit:
    """A runner introduces itself. The names map to JSON text, `metadata` is JSON text too."""

    name: str
    version: int
    total_slots: int
    prepopulate_actor_names: Mapping[str, str] | None
    metadata: str | None


@dataclass(frozen=True, slots=True)
class ToServerEvents:
    """What actors have to tell, in order."""

    events: Sequence[EventWrapper]


@dataclass(frozen=True, slots=True)
class ToServerAckCommands:
    """The last command seen of each actor named. In version 4 their generation is unknown: see ActorCheckpoint."""

    last_command_checkpoints: Sequence[ActorCheckpoint]


@dataclass(frozen=True, slots=True)
class ToServerStopping:
    """The runner wants to drain and leave."""


@dataclass(frozen=True, slots=True)
class ToServerPong:
    """The answer to a ping, with its time."""

    ts_ms: int


@dataclass(frozen=True, slots=True)
class ToServerKvRequest:
    """A call to the store of an actor; `request_id` is a u32 of the runner's choice."""

    actor_id: str
    request_id: int
    data: KvRequestData


ToServer: TypeAlias = (
    ToServerInit
    | ToServerEvents
    | ToServerAckCommands
    | ToServerStopping
    | ToServerPong
    | ToServerKvRequest
    | ToServerTunnelMessage
)

# Top level, engine to runner


@dataclass(frozen=True, slots=True)
class ProtocolMetadata:
    """The engine's thresholds. Versions 4 and 5 tell only the first: decoding gives 0 and None for the others."""

    runner_lost_threshold_ms: int
    actor_stop_threshold_ms: int
    serverless_drain_grace_period_ms: int | None


@dataclass(frozen=True, slots=True)
class ToClientInit:
    """The engine's answer to the runner's init."""

    runner_id: str
    metadata: ProtocolMetadata


@dataclass(frozen=True, slots=True)
class ToClientCommands:
    """What the runner has to do, in order."""

    commands: Sequence[CommandWrapper]


@dataclass(frozen=True, slots=True)
class ToClientAckEvents:
    """The last event seen of each actor named. In version 4 their generation is unknown: see ActorCheckpoint."""

    last_event_checkpoints: Sequence[ActorCheckpoint]


@dataclass(frozen=True, slots=True)
class ToClientKvResponse:
    """The answer to the ToServerKvRequest of the same `request_id`."""

    request_id: int
    data: KvResponseData


@dataclass(frozen=True, slots=True)
class ToClientPing:
    """The engine asks for a sign of life."""

    ts_ms: int


ToClient: TypeAlias = (
    ToClientInit | ToClientCommands | ToClientAckEvents | ToClientKvResponse | ToClientTunnelMessage | ToClientPing
)

# The payload of a serverless runner's event stream (PROTOCOL §7.2)


@dataclass(frozen=True, slots=True)
class ToServerlessServerInit:
    """The runner that a `/start` request has brought up, and the version of the protocol it speaks."""

    runner_id: str
    runner_protocol_version: int
