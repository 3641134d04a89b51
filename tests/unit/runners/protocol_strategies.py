"""Any message a version of the protocol has, as far as that version can tell it, for Hypothesis."""

from hypothesis import strategies as st

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    HibernatingRequest,
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDeleteResponse,
    KvDropRequest,
    KvDropResponse,
    KvErrorResponse,
    KvGetRequest,
    KvGetResponse,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListRangeQuery,
    KvListRequest,
    KvListResponse,
    KvMetadata,
    KvPutRequest,
    KvPutResponse,
    MessageId,
    ProtocolMetadata,
    StopCode,
    ToClientAckEvents,
    ToClientCommands,
    ToClientInit,
    ToClientKvResponse,
    ToClientPing,
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerPong,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerStopping,
    ToServerTunnelMessage,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)


def tuples(item):
    return st.lists(item, max_size=4).map(tuple)


def maybe(value):
    return st.none() | value


U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
BOOL = st.booleans()
# Lengths around 128 and 1024 are where their own length, or the way of writing them, changes.
TEXT = st.text(max_size=8) | st.sampled_from(["a" * 127, "a" * 128, "é" * 64, "a" * 1023, "a" * 1024])
DATA = st.binary(max_size=8) | st.sampled_from([bytes(127), bytes(128), bytes(20_000)])
MAP = st.dictionaries(TEXT, TEXT, max_size=4)
ID = st.binary(min_size=4, max_size=4)
MESSAGE_ID = st.builds(MessageId, ID, ID, U16)

INTENT = st.sampled_from([ActorIntentSleep(), ActorIntentStop()])
STATE = st.just(ActorStateRunning()) | st.builds(ActorStateStopped, st.sampled_from(StopCode), maybe(TEXT))
EVENT = (
    st.builds(EventActorIntent, INTENT)
    | st.builds(EventActorStateUpdate, STATE)
    | st.builds(EventActorSetAlarm, maybe(I64))
)
CONFIG = st.builds(ActorConfig, TEXT, maybe(TEXT), I64, maybe(DATA))
COMMAND = st.just(CommandStopActor()) | st.builds(
    CommandStartActor, CONFIG, tuples(st.builds(HibernatingRequest, ID, ID))
)
CHECKPOINT = st.builds(ActorCheckpoint, TEXT, U32, I64)

KEYS = tuples(DATA)
QUERY = (
    st.just(KvListAllQuery()) | st.builds(KvListRangeQuery, DATA, DATA, BOOL) | st.builds(KvListPrefixQuery, DATA)
)
KV_METADATA = tuples(st.builds(KvMetadata, DATA, I64))
KV_RESPONSE = (
    st.builds(KvErrorResponse, TEXT)
    | st.builds(KvGetResponse, KEYS, KEYS, KV_METADATA)
    | st.builds(KvListResponse, KEYS, KEYS, KV_METADATA)
    | st.sampled_from([KvPutResponse(), KvDeleteResponse(), KvDropResponse()])
)

TO_CLIENT_KIND = (
    st.builds(ToClientRequestStart, TEXT, TEXT, TEXT, MAP, maybe(DATA), BOOL)
    | st.builds(ToClientRequestChunk, DATA, BOOL)
    | st.just(ToClientRequestAbort())
    | st.builds(ToClientWebSocketOpen, TEXT, TEXT, MAP)
    | st.builds(ToClientWebSocketMessage, DATA, BOOL)
    | st.builds(ToClientWebSocketClose, maybe(U16), maybe(TEXT))
)
TO_SERVER_KIND = (
    st.builds(ToServerResponseStart, U16, MAP, maybe(DATA), BOOL)
    | st.builds(ToServerResponseChunk, DATA, BOOL)
    | st.just(ToServerResponseAbort())
    | st.builds(ToServerWebSocketOpen, BOOL)
    | st.builds(ToServerWebSocketMessage, DATA, BOOL)
    | st.builds(ToServerWebSocketMessageAck, U16)
    | st.builds(ToServerWebSocketClose, maybe(U16), maybe(TEXT), BOOL)
)


def kv_request(version):
    ranges = [st.builds(KvDeleteRangeRequest, DATA, DATA)] if version >= 7 else []
    return st.one_of(
        st.builds(KvGetRequest, KEYS),
        st.builds(KvListRequest, QUERY, maybe(BOOL), maybe(U64)),
        st.builds(KvPutRequest, KEYS, KEYS),
        st.builds(KvDeleteRequest, KEYS),
        st.just(KvDropRequest()),
        *ranges,
    )


def acknowledged(version):
    return CHECKPOINT if version > 4 else st.builds(ActorCheckpoint, TEXT, st.just(0), I64)


def to_server(version):
    """Any message of a runner."""
    return (
        st.builds(ToServerInit, TEXT, U32, U32, maybe(MAP), maybe(TEXT))
        | st.builds(ToServerEvents, tuples(st.builds(EventWrapper, CHECKPOINT, EVENT)))
        | st.builds(ToServerAckCommands, tuples(acknowledged(version)))
        | st.just(ToServerStopping())
        | st.builds(ToServerPong, I64)
        | st.builds(ToServerKvRequest, TEXT, U32, kv_request(version))
        | st.builds(ToServerTunnelMessage, MESSAGE_ID, TO_SERVER_KIND)
    )


def to_client(version):
    """Any message of the engine."""
    thresholds = (I64, I64, maybe(I64)) if version >= 6 else (I64, st.just(0), st.none())
    return (
        st.builds(ToClientInit, TEXT, st.builds(ProtocolMetadata, *thresholds))
        | st.builds(ToClientCommands, tuples(st.builds(CommandWrapper, CHECKPOINT, COMMAND)))
        | st.builds(ToClientAckEvents, tuples(acknowledged(version)))
        | st.builds(ToClientKvResponse, U32, KV_RESPONSE)
        | st.builds(ToClientTunnelMessage, MESSAGE_ID, TO_CLIENT_KIND)
        | st.builds(ToClientPing, I64)
    )
