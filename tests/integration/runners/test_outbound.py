"""Where the engine may be sent by others: hostile addresses, redirects, names that change their minds."""

import asyncio
import socket
import ssl
from ipaddress import ip_address

import httpx
import pytest

from runners.errors import MetadataNotFetched
from runners.metadata import MAX_REDIRECTS, fetch_metadata
from runners.outbound import AddressRefused, make_client
from tests.support.http_server import Reply, http_server

GOOD = Reply(200, {"runtime": "rivetkit", "version": "1"})

HOSTILE = [
    # this machine, in many spellings
    ("http://127.0.0.1:{port}", "loopback"),
    ("http://127.1:{port}", "loopback"),
    ("http://127.255.255.254:{port}", "loopback"),
    ("http://2130706433:{port}", "loopback"),
    ("http://0x7f000001:{port}", "loopback"),
    ("http://0x7f.0.0.1:{port}", "loopback"),
    ("http://0177.0.0.1:{port}", "loopback"),
    ("http://017700000001:{port}", "loopback"),
    ("http://localhost:{port}", "loopback"),
    ("http://user:secret@127.0.0.1:{port}", "loopback"),
    ("http://[::1]:{port}", "loopback"),
    ("http://[0:0:0:0:0:0:0:1]:{port}", "loopback"),
    ("http://[::ffff:127.0.0.1]:{port}", "loopback"),
    ("http://[::ffff:7f00:1]:{port}", "loopback"),
    ("http://[64:ff9b::7f00:1]:{port}", "loopback"),
    ("http://0.0.0.0:{port}", "no address of one machine"),
    ("http://0:{port}", "no address of one machine"),
    ("http://[::]:{port}", "no address of one machine"),
    # the secrets of a cloud's machine
    ("http://169.254.169.254/latest", "metadata"),
    ("http://2852039166", "metadata"),
    ("http://0xa9fea9fe", "metadata"),
    ("http://0251.0376.0251.0376", "metadata"),
    ("http://0xa9.254.0251.0xfe", "metadata"),
    ("http://[::ffff:a9fe:a9fe]", "metadata"),
    ("http://[::169.254.169.254]", "metadata"),
    ("http://[2002:a9fe:a9fe::]", "metadata"),
    ("http://[fd00:ec2::254]", "metadata"),
    ("http://100.100.100.200", "metadata"),
    ("http://169.254.1.1", "link-local"),
    ("http://[fe80::1%25eth0]", "link-local"),
    # its neighbours
    ("http://10.0.0.1", "private"),
    ("http://192.168.1.1", "private"),
    ("http://172.16.0.1", "private"),
    ("http://[fd12::1]", "private"),
    ("http://100.64.0.1", "private"),
    ("http://255.255.255.255", "reserved"),
    ("http://224.0.0.1", "no address of one machine"),
]


def _failure(url, **options):
    with pytest.raises(MetadataNotFetched) as caught:
        fetch_metadata(url=url, headers={}, **options)
    reason = caught.value.metadata["reason"]
    return reason["metadata"]["kind"], reason["message"]


def _resolver(*answers):
    """Return a resolver that gives one answer after the other, and the hosts it was asked for."""
    asked, left = [], list(answers)

    async def resolve(host, port):
        asked.append(host)
        return [ip_address(text) for text in left.pop(0)]

    return resolve, asked


@pytest.fixture
def public(env):
    """An engine that the world can reach."""
    env(host="0.0.0.0")


@pytest.mark.parametrize(("url", "why"), HOSTILE, ids=[url.replace("{port}", "1") for url, _ in HOSTILE])
def test_an_engine_the_world_can_reach_calls_no_hostile_address(public, url, why):
    with http_server(GOOD) as endpoint:
        port = endpoint.url.rpartition(":")[2]
        kind, message = _failure(url.format(port=port))
    assert (kind, endpoint.calls) == ("invalid_request", [])
    assert why in message
    assert "secret" not in message


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "240.0.0.1"])
def test_some_addresses_are_refused_even_where_private_ones_are_not(address):
    host = f"[{address}]" if ":" in address else address
    assert _failure(f"http://{host}:1")[0] == "invalid_request"


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"public_url": "https://engine.example"}, False),
        ({"host": "::1", "public_url": "http://localhost:1"}, True),
        ({"host": "0.0.0.0", "serverless_private": True}, True),
        ({"serverless_private": False}, False),
    ],
)
def test_an_engine_on_loopback_may_call_loopback_unless_told_otherwise(env, settings, variables, allowed):
    env(**variables)
    assert settings.ENV.private_endpoints_allowed is allowed


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/", "http://0.0.0.0:1/"],
)
def test_a_redirect_to_a_refused_address_is_not_followed(target):
    with http_server(Reply(302, b"", {"location": target})) as endpoint:
        assert _failure(endpoint.url)[0] == "invalid_request"
    assert len(endpoint.calls) == 1


@pytest.mark.parametrize("target", ["ftp://a/", "file:///etc/passwd", "gopher://a/"])
def test_a_redirect_to_another_scheme_is_not_followed(target):
    with http_server(Reply(302, b"", {"location": target})) as endpoint:
        assert _failure(endpoint.url)[0] == "invalid_request"


def test_a_redirect_elsewhere_does_not_carry_the_configured_headers_along():
    with http_server(GOOD) as other, http_server(Reply(307, b"", {"location": f"{other.url}/there"})) as endpoint:
        fetch_metadata(url=endpoint.url, headers={"x-api-key": "k", "authorization": "a"})
    [first], [second] = endpoint.calls, other.calls
    assert (first.headers["x-api-key"], second.path) == ("k", "/there")
    assert not {"x-api-key", "authorization"} & set(second.headers)


def test_redirects_come_to_an_end():
    with http_server(Reply(302, b"", {"location": "/again"})) as endpoint:
        assert _failure(endpoint.url)[0] == "request_failed"
    assert len(endpoint.calls) == MAX_REDIRECTS + 1


def test_a_name_is_called_at_the_very_address_that_was_checked():
    with http_server(GOOD) as endpoint:
        resolver, asked = _resolver(["127.0.0.1"])
        port = endpoint.url.rpartition(":")[2]
        assert fetch_metadata(url=f"http://rebinding.test:{port}", headers={}, resolver=resolver).version == "1"
    assert asked == ["rebinding.test"]  # once: a second answer would find nobody to believe it
    assert endpoint.calls[0].headers["host"] == f"rebinding.test:{port}"


def test_a_name_that_changes_its_mind_between_two_hops_is_refused():
    with http_server(Reply(302, b"", {"location": "/again"})) as endpoint:
        resolver, asked = _resolver(["127.0.0.1"], ["169.254.169.254"])
        port = endpoint.url.rpartition(":")[2]
        kind, message = _failure(f"http://rebinding.test:{port}", resolver=resolver)
    assert (kind, len(endpoint.calls), len(asked)) == ("invalid_request", 1, 2)
    assert "metadata address" in message
    assert "169.254" not in message  # what a name is here is nobody's business


def test_one_bad_address_among_good_ones_refuses_the_name(public):
    resolver, _ = _resolver(["1.1.1.1", "10.0.0.1"])
    kind, message = _failure("http://mixed.test", resolver=resolver)
    assert (kind, "private" in message) == ("invalid_request", True)


def test_the_next_address_is_tried_where_the_first_does_not_listen():
    with http_server(GOOD) as endpoint:
        resolver, _ = _resolver(["127.0.0.99", "127.0.0.1"])
        port = endpoint.url.rpartition(":")[2]
        assert fetch_metadata(url=f"http://two.test:{port}", headers={}, resolver=resolver).version == "1"


def test_a_name_that_does_not_exist_is_told():
    kind, message = _failure("http://nowhere.invalid")
    assert (kind, "could not be resolved" in message) == ("request_failed", True)


async def test_tls_asks_for_the_name_and_not_for_the_address():
    asked = asyncio.get_running_loop().create_future()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: asked.set_result(name)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    resolver, _ = _resolver(["127.0.0.1"])
    async with server, make_client(resolver) as client:
        with pytest.raises(httpx.ConnectError):  # the server has no certificate
            await client.get(f"https://named.test:{server.sockets[0].getsockname()[1]}/")
    assert await asked == "named.test"


async def test_no_cookie_is_kept_for_the_next_pool():
    with http_server(Reply(200, {}, {"set-cookie": "a=b; Path=/"})) as endpoint:
        async with make_client() as client:
            for _ in range(2):
                await client.get(endpoint.url)
    assert "cookie" not in endpoint.calls[1].headers


async def test_nothing_is_sent_to_a_refused_address(public):
    async with make_client() as client:
        with pytest.raises(AddressRefused):
            await client.get("http://127.0.0.1:1/")


@pytest.mark.parametrize("drip", [b"x", b"HTTP/1.1 200 OK\r\nx: y\r\n"], ids=["bytes", "headers"])
def test_an_answer_that_never_ends_is_given_up_in_time(monkeypatch, drip):
    monkeypatch.setattr("runners.metadata.TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = None

        async def call():
            nonlocal client
            running = asyncio.get_running_loop().run_in_executor(
                None, _failure, f"http://127.0.0.1:{listener.getsockname()[1]}"
            )
            client, _ = await asyncio.get_running_loop().run_in_executor(None, listener.accept)
            with client:
                client.sendall(drip)
                return await running

        assert asyncio.run(call())[0] in ("request_timed_out", "request_failed")


def test_a_long_answer_is_not_read_to_its_end():
    with http_server(Reply(200, b" " * (1024 * 1024 + 1))) as endpoint:
        kind, message = _failure(endpoint.url)
    assert (kind, "too long" in message) == ("request_failed", True)


def test_a_compressed_answer_is_not_unpacked():
    import gzip

    body = gzip.compress(b" " * 10_000_000 + b"{}")
    with http_server(Reply(200, body, {"content-encoding": "gzip"})) as endpoint:
        assert _failure(endpoint.url)[0] == "invalid_response_json"
    assert endpoint.calls[0].headers["accept-encoding"] == "identity"
