"""From the upgrade to the init, and what ends it there (PROTOCOL §2)."""

from datetime import timedelta

import httpx
import pytest

from orchestrator.db import run_db
from runners.models import ActorName, Runner, RunnerConfig
from runners.protocol.codec import MAX_FRAME_BYTES, encode_to_server
from runners.protocol.messages import (
    MessageId,
    ToClientPing,
    ToServerInit,
    ToServerPong,
    ToServerResponseStart,
    ToServerStopping,
    ToServerTunnelMessage,
)
from runners.protocol.tunnel import MAX_PAYLOAD_BYTES
from tests.support.scripted_runner import dial, end_of, socket_url

pytestmark = pytest.mark.django_db(transaction=True)

INIT = encode_to_server(ToServerInit("pool", 1, 10, {}, None), 7)
LOST, STOP, GRACE = 15_000, 1_800_000, 10_000


@pytest.mark.parametrize(
    ("offers", "selected"),
    [(["rivet"], "rivet"), (["rivet_token.t", "rivet"], "rivet"), (["other"], None), ([], None)],
)
async def test_the_subprotocol_is_selected_only_if_it_is_offered(engine_url, offers, selected):
    async with dial(socket_url(engine_url), offers) as socket:
        assert socket.subprotocol == selected
        await socket.send(INIT)
        await socket.recv()


async def test_a_plain_request_is_told_what_is_here(engine_url):
    async with httpx.AsyncClient(base_url=engine_url, trust_env=False) as client:
        for path, headers in [("/runners/connect", {}), ("/x", {"x-rivet-target": "runner"})]:
            answer = await client.get(path, headers=headers)
            assert (answer.status_code, answer.text) == (200, "pegboard-runner WebSocket endpoint")


async def test_any_path_will_do_for_a_socket_that_names_its_target(engine_url):
    url = socket_url(engine_url).replace("/runners/connect", "/anything")
    async with dial(url, ["rivet", "rivet_target.runner"]) as socket:
        await socket.send(INIT)
        assert (await socket.recv())[0] == 0


async def test_a_percent_sign_hides_no_path(engine_url):
    url = socket_url(engine_url).replace("/runners/connect", "/runners%2Fconnect")
    async with dial(url) as socket:
        assert await end_of(socket) == (1011, "guard.no_route")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ({"version": None}, "ws.invalid_url"),
        ({"version": "x"}, "ws.invalid_url"),
        ({"version": 70_000}, "ws.invalid_url"),
        ({"namespace": None}, "ws.invalid_url"),
        ({"key": None}, "ws.invalid_url"),
        ({"namespace": "nobody"}, "namespace.not_found"),
    ],
)
async def test_a_bad_address_is_refused_whether_or_not_a_frame_comes(engine_url, address, reason):
    async with dial(socket_url(engine_url, **address)) as socket:
        assert await end_of(socket) == (1011, reason)


@pytest.mark.parametrize(
    ("version", "frame", "reason"),
    [
        (3, INIT, "ws.invalid_packet"),
        (8, INIT, "ws.invalid_packet"),
        (7, "text", "ws.invalid_packet"),
        (7, b"", "ws.invalid_packet"),
        (7, b"\xff\xff", "ws.invalid_packet"),
        (7, INIT + b"\0", "ws.invalid_packet"),
        (7, encode_to_server(ToServerStopping(), 7), "ws.invalid_initial_packet"),
        (7, encode_to_server(ToServerPong(1), 7), "ws.invalid_initial_packet"),
    ],
)
async def test_a_first_frame_that_is_no_init_ends_it(engine_url, version, frame, reason):
    async with dial(socket_url(engine_url, version=version)) as socket:
        await socket.send(frame)
        assert await end_of(socket) == (1011, reason)


async def test_a_first_frame_that_does_not_come_ends_it(engine_url, env):
    env(runner_init_timeout_ms=100)
    async with dial(socket_url(engine_url)) as socket:
        assert await end_of(socket) == (1011, "ws.timed_out_waiting_for_init")


async def test_a_runner_that_hangs_up_before_its_init_leaves_nothing(engine_url):
    async with dial(socket_url(engine_url)):
        pass
    assert not await run_db(Runner.objects.exists)


@pytest.mark.parametrize(
    ("offers", "reason"),
    [(["rivet"], "guard.missing_header"), (["rivet", "rivet_token.wrong"], "api.forbidden")],
)
async def test_an_engine_with_a_token_asks_for_it(engine_url, env, host, offers, reason):
    env(admin_token="secret")
    async with dial(socket_url(engine_url), offers) as socket:
        assert await end_of(socket) == (1011, reason)
    assert (await host(offers=["rivet", "rivet_token.secret"])).runner_id


async def test_an_unknown_socket_is_accepted_and_told_that_there_is_no_route(engine_url):
    async with dial(engine_url.replace("http", "ws") + "/nowhere") as socket:
        assert await end_of(socket) == (1011, "guard.no_route")


# What an init does


async def test_the_init_is_answered_with_the_runners_id_and_the_engines_thresholds(host):
    runner = await host()
    metadata = runner.welcome.metadata
    assert len(runner.runner_id) == 30
    assert (metadata.runner_lost_threshold_ms, metadata.actor_stop_threshold_ms) == (LOST, STOP)
    assert metadata.serverless_drain_grace_period_ms is None
    row = await run_db(Runner.objects.get, pk=runner.runner_id)
    assert (row.name, row.key, row.runner_version, row.total_slots, row.used_slots) == ("pool", "key", 1, 10, 0)
    assert row.socket_id
    assert row.state == Runner.State.LIVE
    assert row.protocol_version == 7


@pytest.mark.parametrize("version", [4, 5, 6])
async def test_older_versions_are_spoken_too(host, version):
    runner = await host(version=version)
    assert runner.welcome.metadata.runner_lost_threshold_ms == LOST
    assert (runner.welcome.metadata.actor_stop_threshold_ms == STOP) == (version >= 6)


async def test_a_runner_of_a_serverless_pool_is_told_how_long_it_may_drain(namespace, host):
    kind = {"kind": "serverless", "url": "http://127.0.0.1:1", "request_lifespan": timedelta(minutes=5)}
    await run_db(RunnerConfig.objects.create, namespace=namespace, name="pool", **kind)
    assert (await host()).welcome.metadata.serverless_drain_grace_period_ms == GRACE


async def test_a_pool_nobody_has_configured_is_there_before_the_init_is_answered(host, namespace):
    await host(pool="new")
    pool = await run_db(RunnerConfig.objects.get, namespace=namespace, name="new")
    assert (pool.kind, pool.drain_on_version_upgrade) == ("normal", False)


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (None, None),
        ('{"a": [1]}', {"a": [1]}),
        ("no json", {}),
        ("[1]", {}),
        ('{"a": "\\u0000"}', {}),
        ('{"a": "\\ud800"}', {}),
        ('{"a": NaN}', {}),
        ("[" * 100_000, {}),
    ],
)
async def test_metadata_is_kept_if_it_is_an_object_a_database_can_keep(host, metadata, kept):
    names = {"counter": metadata or "{}", "a\0b": "{}"}
    runner = await host(metadata=metadata, names=names)
    assert (await run_db(Runner.objects.get, pk=runner.runner_id)).metadata == kept
    [name] = await run_db(lambda: list(ActorName.objects.all()))
    assert (name.name, name.metadata) == ("counter", kept or {})


# After the init


async def test_a_second_init_and_frames_that_mean_nothing_are_skipped(host, env):
    env(runner_ping_interval_ms=100)
    runner = await host()
    for frame in (
        INIT,
        "text",
        b"",
        b"\xff",
        b"\x06",
        b"\x06\1\2\3\4\5\6\7\10\0\0\xff",
        INIT + b"\0",
        b"\x01\x01",
    ):
        await runner.socket.send(frame)
    for _ in range(2):
        await runner.take(ToClientPing)
    assert [type(message).__name__ for message in runner.received].count("ToClientInit") == 1


@pytest.mark.parametrize("size", [MAX_PAYLOAD_BYTES + 1, MAX_FRAME_BYTES + 1])
async def test_a_tunnel_payload_over_the_limit_costs_the_connection(host, size):
    runner = await host()
    frame = bytearray(encode_to_server(answer(b"x"), 7)[:-3])
    length = size
    while True:  # an unsigned LEB128 (PROTOCOL §1.1)
        frame.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            break
    await runner.socket.send(bytes(frame) + bytes(size) + b"\0")
    assert await runner.has_closed() == (1011, "ws.invalid_packet")


async def test_a_tunnel_payload_of_just_the_limit_does_not(host, env):
    env(runner_ping_interval_ms=100)
    runner = await host()
    await runner.send(answer(bytes(MAX_PAYLOAD_BYTES)))
    for _ in range(2):
        await runner.take(ToClientPing)


def answer(body):
    return ToServerTunnelMessage(
        MessageId(b"gate", b"req1", 0), ToServerResponseStart(200, {}, body, stream=False)
    )
