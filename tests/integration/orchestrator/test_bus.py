import asyncio
import datetime
import gc
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.bus import Bus, close_bus, get_bus, link, publish_sync
from orchestrator.errors import BusOverloaded, BusUnavailable
from tests.support.processes import free_port
from tests.support.valkey import Valkey

SOON = 10.0


class Inbox:
    """A handler that keeps what it gets, and lets a test wait for it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._more = asyncio.Event()

    def __call__(self, payload: bytes) -> None:
        self.messages.append(payload)
        self._more.set()

    async def have(self, count: int) -> list[bytes]:
        async with asyncio.timeout(SOON):
            while len(self.messages) < count:
                self._more.clear()
                await self._more.wait()
        return self.messages


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("v")  # a short name: a socket's path has 107 bytes


@pytest.fixture
def store(directory: Path) -> Iterator[Valkey]:
    yield from _running(Valkey(directory))


@pytest.fixture
async def bus(store: Valkey) -> AsyncIterator[Bus]:
    async with connected(store.url) as one:
        yield one


def _running(store: Valkey) -> Iterator[Valkey]:
    store.start()
    yield store
    store.kill()


@asynccontextmanager
async def connected(url: str, **options: int) -> AsyncIterator[Bus]:
    bus = Bus(url, **options)
    try:
        await asyncio.wait_for(bus.start(), SOON)
        yield bus
    finally:
        await bus.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.01)


async def test_messages_arrive_in_order_at_every_handler_of_every_process(bus: Bus, store: Valkey) -> None:
    here, too, there = Inbox(), Inbox(), Inbox()
    async with connected(store.url) as other:
        await bus.subscribe("news", here)
        await bus.subscribe("news", too)
        await other.subscribe("news", there)
        sent = [b"%d" % number for number in range(2_000)]
        for number, message in enumerate(sent):
            bus.publish("news", message)
            if number % 7 == 0:  # over many turns of the loop
                await asyncio.sleep(0)
        for inbox in (here, too, there):
            assert await inbox.have(len(sent)) == sent


async def test_a_message_goes_to_its_channel_alone(bus: Bus) -> None:
    wanted, other = Inbox(), Inbox()
    await bus.subscribe("wanted", wanted)
    await bus.subscribe("other", other)
    bus.publish("wanted", b"\x00\r\n*3 \xff")
    bus.publish("wanted", b"")
    assert await wanted.have(2) == [b"\x00\r\n*3 \xff", b""]
    assert other.messages == []


async def test_a_handler_that_fails_harms_nobody(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    def fail(payload: bytes) -> None:
        raise ValueError("no")

    inbox = Inbox()
    await bus.subscribe("news", fail)
    await bus.subscribe("news", inbox)
    bus.publish("news", b"1")
    bus.publish("news", b"2")
    assert await inbox.have(2) == [b"1", b"2"]
    assert bus.connected
    assert "a handler of channel news failed" in caplog.text


async def test_a_handler_is_called_as_often_as_it_was_given(bus: Bus) -> None:
    twice = Inbox()
    await bus.subscribe("news", twice)
    await bus.subscribe("news", twice)
    assert await bus.publish_counted("news", b"1") == 1  # one subscription, two handlers
    assert await twice.have(2) == [b"1", b"1"]
    bus.unsubscribe("news", twice)
    await bus.publish_counted("news", b"2")
    assert await twice.have(3) == [b"1", b"1", b"2"]
    for _ in range(3):
        bus.unsubscribe("news", twice)
    assert await bus.publish_counted("news", b"3") == 0
    assert len(twice.messages) == 3


async def test_a_channel_can_be_left_and_joined_within_one_turn(bus: Bus) -> None:
    inbox = Inbox()
    await bus.subscribe("news", inbox)
    for _ in range(5):
        bus.unsubscribe("news", inbox)
        await bus.subscribe("news", inbox)
    bus.publish("news", b"1")
    assert await inbox.have(1) == [b"1"]


async def test_what_was_on_its_way_to_a_channel_when_the_last_one_left_it_is_not_lost(bus: Bus) -> None:
    first, second, late = Inbox(), Inbox(), Inbox()
    await bus.subscribe("news", first)
    await bus.subscribe("news", second)
    bus.publish("news", b"1")
    bus.unsubscribe("news", first, late)
    assert await second.have(1) == [b"1"]
    bus.publish("news", b"2")
    bus.unsubscribe("news", second, late)
    assert await late.have(1) == [b"2"]
    assert await bus.publish_counted("news", b"3") == 0
    assert not bus._left


async def test_publish_counted_tells_how_many_processes_listen(bus: Bus, store: Valkey) -> None:
    assert await bus.publish_counted("news", b"") == 0
    async with connected(store.url) as other:
        await bus.subscribe("news", Inbox())
        await other.subscribe("news", Inbox())
        assert await bus.publish_counted("news", b"") == 2
    await eventually_counts(bus, 1)


async def eventually_counts(bus: Bus, count: int) -> None:
    async with asyncio.timeout(SOON):
        while await bus.publish_counted("news", b"") != count:  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.01)


async def test_after_a_restart_of_redis_everything_is_subscribed_and_listeners_ask_again(
    bus: Bus, store: Valkey
) -> None:
    inbox, asked = Inbox(), asyncio.Event()
    for number in range(50):
        await bus.subscribe(f"news:{number}", inbox)

    def ask_again() -> None:
        assert bus.connected
        bus.publish("news:7", b"asked again")
        asked.set()

    bus.on_reset(ask_again)
    for _ in range(2):
        inbox.messages.clear()
        asked.clear()
        store.kill()
        await eventually(lambda: not bus.connected)
        bus.publish("news:1", b"into the void")
        with pytest.raises(BusUnavailable):
            await bus.publish_counted("news:1", b"")
        store.start()
        await asyncio.wait_for(asked.wait(), SOON)
        bus.publish("news:49", b"back")
        assert await inbox.have(2) == [b"asked again", b"back"]


async def test_a_listener_that_fails_to_ask_again_harms_nobody(bus: Bus, store: Valkey) -> None:
    asked = asyncio.Event()

    def fail() -> None:
        raise ValueError("no")

    bus.on_reset(fail)
    bus.on_reset(asked.set)
    store.restart()
    await asyncio.wait_for(asked.wait(), SOON)


async def test_subscribing_while_redis_is_away_waits_for_it(bus: Bus, store: Valkey) -> None:
    old, new = Inbox(), Inbox()
    await bus.subscribe("old", old)
    store.kill()
    await eventually(lambda: not bus.connected)
    waiting = [asyncio.create_task(bus.subscribe(channel, new)) for channel in ("old", "new")]
    given_up = asyncio.create_task(bus.subscribe("new", old))
    await asyncio.sleep(0)
    given_up.cancel()
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    store.start()
    await asyncio.wait_for(asyncio.gather(*waiting), SOON)
    assert await bus.publish_counted("new", b"1") == 1
    assert await bus.publish_counted("old", b"2") == 1
    assert (await new.have(2), await old.have(1)) == ([b"1", b"2"], [b"2"])


async def test_an_unanswered_count_fails_when_the_link_is_lost(bus: Bus, store: Valkey) -> None:
    store.freeze()
    counting = asyncio.create_task(bus.publish_counted("news", b""))
    await asyncio.sleep(0)
    store.kill()
    with pytest.raises(BusUnavailable):
        await asyncio.wait_for(counting, SOON)


async def test_a_subscription_lost_before_its_confirmation_is_asked_for_again(bus: Bus, store: Valkey) -> None:
    store.freeze()
    subscribing = asyncio.create_task(bus.subscribe("news", inbox := Inbox()))
    await asyncio.sleep(0)
    store.kill()
    await eventually(lambda: not bus.connected)
    store.start()
    await asyncio.wait_for(subscribing, SOON)
    bus.publish("news", b"1")
    assert await inbox.have(1) == [b"1"]


async def test_a_redis_that_falls_silent_is_given_up(store: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WATCH_SECONDS", 0.05)
    async with connected(store.url) as bus:
        await bus.subscribe("news", inbox := Inbox())
        await asyncio.sleep(0.5)  # an idle link is pinged, not given up
        assert bus.connected
        asked = asyncio.Event()
        bus.on_reset(asked.set)
        store.freeze()
        await eventually(lambda: not bus.connected)
        store.thaw()
        await asyncio.wait_for(asked.wait(), SOON)
        bus.publish("news", b"1")
        assert await inbox.have(1) == [b"1"]


async def test_what_waits_to_be_sent_is_bounded_and_sent_later(store: Valkey) -> None:
    limit, size = 4_000_000, 100_000
    async with connected(store.url, pending_limit_bytes=limit) as bus:
        await bus.subscribe("news", inbox := Inbox())
        store.freeze()
        sent = 0
        overloaded: BusOverloaded | None = None
        while overloaded is None:
            try:
                bus.publish("news", b"%d" % sent + bytes(size))
            except BusOverloaded as error:
                overloaded = error
            else:
                sent += 1
                await asyncio.sleep(0)
        assert limit - 2 * size < bus.pending_bytes <= limit + 100 * sent
        assert (overloaded.status, overloaded.body()["code"]) == (503, "bus_overloaded")
        with pytest.raises(BusOverloaded):
            await bus.publish_counted("news", bytes(size))
        store.thaw()
        assert [int(message.rstrip(b"\0")) for message in await inbox.have(sent)] == list(range(sent))
        assert bus.pending_bytes == 0
        bus.publish("news", b"room again")
        assert (await inbox.have(sent + 1))[-1] == b"room again"


async def test_big_payloads_arrive_whole(directory: Path) -> None:
    for store in _running(Valkey(directory, "--client-output-buffer-limit", "pubsub 256mb 0 0")):
        async with connected(store.url) as sender, connected(store.url) as receiver:
            await receiver.subscribe("big", inbox := Inbox())
            payloads = [os.urandom(20 * 1024**2), b"small", os.urandom(20 * 1024**2), b""]
            for payload in payloads:
                sender.publish("big", payload)
            assert await inbox.have(4) == payloads


async def test_a_subscriber_that_redis_cuts_off_asks_again(bus: Bus, store: Valkey) -> None:
    async with connected(store.url) as receiver:
        await receiver.subscribe("news", inbox := Inbox())
        asked = asyncio.Event()
        receiver.on_reset(asked.set)
        bus.on_reset(lambda: pytest.fail("only the subscriber was cut off"))
        with redis.Redis.from_url(store.url) as client:
            assert client.client_kill_filter(_type="pubsub") == 1
        await asyncio.wait_for(asked.wait(), SOON)
        assert await bus.publish_counted("news", b"1") == 1
        assert await inbox.have(1) == [b"1"]


@pytest.mark.parametrize(("limit", "warned"), [("32mb", True), ("256mb", False), ("0", False)])
async def test_a_redis_that_would_cut_off_subscribers_too_soon_is_warned_about(
    directory: Path, caplog: pytest.LogCaptureFixture, limit: str, warned: bool
) -> None:
    for store in _running(Valkey(directory, "--client-output-buffer-limit", f"pubsub {limit} 0 0")):
        async with connected(store.url) as bus:
            await bus.publish_counted("news", b"")  # answered after the question for the limit
            assert ("set client-output-buffer-limit" in caplog.text) == warned


async def test_a_bus_may_be_started_and_used_before_redis(directory: Path) -> None:
    store = Valkey(directory)
    bus, inbox = Bus(store.url), Inbox()
    starting = asyncio.create_task(bus.start())
    subscribing = asyncio.create_task(bus.subscribe("news", inbox))
    await asyncio.sleep(0)
    bus.publish("news", b"early")
    done, _ = await asyncio.wait([starting, subscribing], timeout=0.2)
    assert not done
    assert not bus.connected
    store.start()
    await asyncio.wait_for(asyncio.gather(starting, subscribing), SOON)
    assert await inbox.have(1) == [b"early"]
    assert await bus.publish_counted("news", b"") == 1
    await bus.stop()
    store.kill()


async def test_stopping_ends_every_wait(directory: Path) -> None:
    bus = Bus(Valkey(directory).url)
    starting = asyncio.create_task(bus.start())
    subscribing = asyncio.create_task(bus.subscribe("news", Inbox()))
    counting = asyncio.create_task(bus.publish_counted("news", b""))
    await asyncio.sleep(0.1)
    await bus.stop()
    await asyncio.wait_for(starting, SOON)
    for waiting in (subscribing, counting):
        with pytest.raises(BusUnavailable):
            await waiting
    bus.publish("news", b"nowhere")
    with pytest.raises(BusUnavailable):
        await bus.subscribe("news", Inbox())
    await bus.stop()


async def test_stopping_sends_what_was_published_before(bus: Bus, store: Valkey) -> None:
    await bus.subscribe("news", inbox := Inbox())
    other = Bus(store.url)
    await other.start()
    for _ in range(100):
        other.publish("news", bytes(10_000))
    await other.stop()
    assert len(await inbox.have(100)) == 100


def admit_guest(store: Valkey) -> None:
    """Have the server know a user who may only use channels of one kind."""
    with redis.Redis.from_url(store.url) as client:
        client.acl_setuser(
            "guest",
            enabled=True,
            passwords="+guest-secret",
            keys="*",
            channels=["open:*"],
            categories=["+@all"],
            reset_channels=True,
        )


@pytest.mark.parametrize("login", ["", ":p%40ss%2Fword@", "default:p%40ss%2Fword@", "guest:guest-secret@"])
async def test_it_logs_in_as_the_url_says(directory: Path, login: str) -> None:
    port = free_port()
    for store in _running(Valkey(directory, "--port", str(port))):
        admit_guest(store)
        if login:
            with redis.Redis.from_url(store.url) as client:
                client.config_set("requirepass", "p@ss/word")
        for url in (f"redis://{login}127.0.0.1:{port}/3", f"unix://{login}{store.socket}?db=3"):
            async with connected(url) as bus:
                await bus.subscribe("open:news", inbox := Inbox())
                bus.publish("open:news", b"1")
                assert await inbox.have(1) == [b"1"]


async def test_a_wrong_password_never_connects(store: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    admit_guest(store)
    bus = Bus(f"unix://guest:wrong@{store.socket}")
    bus.launch()
    await eventually(lambda: "no link to redis" in caplog.text)
    assert not bus.connected
    await bus.stop()


async def test_a_forbidden_channel_is_refused_and_the_rest_works(store: Valkey) -> None:
    admit_guest(store)
    async with connected(f"unix://guest:guest-secret@{store.socket}") as bus:
        await bus.subscribe("open:news", inbox := Inbox())
        with pytest.raises(BusUnavailable, match="NOPERM"):
            await bus.subscribe("closed:news", Inbox())
        with pytest.raises(BusUnavailable, match="NOPERM"):
            await bus.publish_counted("closed:news", b"")
        bus.publish("closed:news", b"")
        bus.publish("open:news", b"1")
        assert await inbox.have(1) == [b"1"]


async def test_a_server_that_speaks_no_redis_never_connects(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    bus = Bus(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    bus.launch()
    await eventually(lambda: "no link to redis" in caplog.text)
    assert not bus.connected
    await bus.stop()
    server.close()
    await server.wait_closed()


def self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


async def test_it_speaks_tls_and_checks_the_certificate(store: Valkey, directory: Path) -> None:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(store.socket)
        await asyncio.gather(copy(reader, outer), copy(inner, writer), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=self_signed(directory))
    port = server.sockets[0].getsockname()[1]
    trusted = f"rediss://localhost:{port}?ssl_ca_certs={directory / 'certificate.pem'}"
    async with connected(trusted) as bus:
        await bus.subscribe("news", inbox := Inbox())
        bus.publish("news", bytes(3_000_000))
        assert await inbox.have(1) == [bytes(3_000_000)]
    stranger = Bus(f"rediss://localhost:{port}?ssl_cert_reqs=required")
    stranger.launch()
    await asyncio.sleep(0.2)
    assert not stranger.connected
    await stranger.stop()
    server.close()
    await server.wait_closed()


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        Bus("http://127.0.0.1")


def test_there_is_one_bus_per_event_loop_and_it_ends_with_the_loop(store: Valkey, settings) -> None:
    settings.REDIS_URL = store.url
    seen: list[Bus] = []

    async def use() -> None:
        bus = get_bus()
        assert get_bus() is bus
        inbox = Inbox()
        await bus.subscribe("news", inbox)
        bus.publish("news", b"1")
        assert await inbox.have(1) == [b"1"]
        seen.append(bus)

    asyncio.run(use())
    asyncio.run(use())
    assert seen[0] is not seen[1]
    assert not any(bus.connected for bus in seen)
    gc.collect()  # a transport left open would warn here, and warnings are errors


async def test_a_closed_bus_is_replaced_by_the_next_one_asked_for(store: Valkey, settings) -> None:
    settings.REDIS_URL = store.url
    first = get_bus()
    await close_bus()
    second = get_bus()
    assert second is not first
    await second.start()
    assert second.connected
    await close_bus()
    await close_bus()


async def test_code_without_a_loop_publishes_many_messages_at_once(bus: Bus, store: Valkey) -> None:
    await bus.subscribe("news", inbox := Inbox())
    with redis.Redis.from_url(store.url) as client:
        publish_sync(client, (("news", b"%d" % number) for number in range(500)))
        publish_sync(client, [])
    assert await inbox.have(500) == [b"%d" % number for number in range(500)]
