"""Bytes that no WebSocket library sends, at the runner's socket of either server: they end that socket alone."""

import contextlib
import socket
import struct
from urllib.parse import urlsplit

import pytest

from runners.protocol.codec import decode_to_client, encode_to_server
from runners.protocol.messages import ToClientInit, ToServerInit, ToServerPong
from tests.support.scripted_runner import socket_url
from tests.support.stories import engines

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "sqlite-uvicorn")]

INIT = encode_to_server(ToServerInit("raw", 1, 1, {}, None), 7)
CONTINUATION, TEXT, BINARY, RESERVED, CLOSE, PING, PONG = 0, 1, 2, 3, 8, 9, 10
SOON_S = 20.0
KEY = b"\1\2\3\4"


class Raw:
    """A connection to the runner's socket that sends whatever bytes it is given."""

    def __init__(self, url, key="raw"):
        address = urlsplit(socket_url(url, key=key))
        self.tcp = socket.create_connection((address.hostname, address.port), SOON_S)
        self._unread = b""
        self.tcp.sendall(
            f"GET {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: rivet\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._unread:
            self._unread += self._more()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    def _more(self):
        data = self.tcp.recv(65_536)
        if not data:
            raise EOFError
        return data

    def _take(self, count):
        while len(self._unread) < count:
            self._unread += self._more()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    def frame(self):
        """Return opcode and payload of the next frame."""
        first, length = self._take(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._take(8))
        return first & 15, self._take(length)

    def until(self, opcode):
        """Return the payload of the next frame of that kind."""
        while True:
            kind, payload = self.frame()
            if kind == opcode:
                return payload

    def end(self):
        """Return the close code, None if there was no close frame; the connection has then to be gone."""
        code = None
        try:
            payload = self.until(CLOSE)
            code = struct.unpack("!H", payload[:2])[0] if payload else None
            self.tcp.sendall(frame(CLOSE, payload))
            while self._more():
                pass
        except (EOFError, ConnectionError):
            return code


def frame(opcode, payload=b"", *, fin=True, masked=True, length=None):
    """Return the bytes of a frame; it may announce another length than it has."""
    size = len(payload) if length is None else length
    bit = 0x80 if masked else 0
    head = bytes([0x80 * fin | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 2**16:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not masked:
        return head + payload
    return head + KEY + bytes(byte ^ KEY[at % 4] for at, byte in enumerate(payload))


@pytest.fixture
def raw(cluster):
    """Open raw connections; afterwards one of another runner must still be in order."""
    opened = []

    def connect(**options):
        opened.append(Raw(cluster.urls[0], **options))
        return opened[-1]

    witness = connect(key="witness")
    witness.tcp.sendall(frame(BINARY, INIT))
    welcome = decode_to_client(witness.until(BINARY), 7)
    yield connect
    witness.tcp.sendall(frame(BINARY, encode_to_server(ToServerPong(0), 7)) + frame(PING, b"still there?"))
    assert witness.until(PONG) == b"still there?"
    assert isinstance(welcome, ToClientInit)
    for one in opened:
        one.tcp.close()


def test_a_message_in_many_pieces_with_a_ping_between_is_one_message(raw):
    peer = raw()
    pieces = [frame(BINARY, INIT[:1], fin=False)]
    pieces += [frame(CONTINUATION, INIT[at : at + 1], fin=False) for at in range(1, len(INIT))]
    for piece in [*pieces, frame(PING, b"p"), frame(CONTINUATION)]:
        for byte in range(0, len(piece), 3):
            peer.tcp.sendall(piece[byte : byte + 3])
    assert peer.until(PONG) == b"p"
    assert isinstance(decode_to_client(peer.until(BINARY), 7), ToClientInit)


ENDS = {
    "unmasked": (frame(BINARY, b"\3", masked=False), {1002}),
    "reserved opcode": (frame(RESERVED, b"x"), {1002}),
    "reserved bits": (bytes([0xF2]) + frame(BINARY, b"\3")[1:], {1002}),
    "continuation of nothing": (frame(CONTINUATION, b"x"), {1002}),
    "a message within a message": (frame(BINARY, b"\1", fin=False) + frame(BINARY, b"\1"), {1002}),
    "a long ping": (frame(PING, bytes(200)), {1002}),
    "a ping in pieces": (frame(PING, b"p", fin=False), {1002}),
    "text that is none": (frame(TEXT, b"\xff\xfe"), {1007}),
    "far too long": (frame(BINARY, length=2**62), {1009}),
    "too long": (frame(BINARY, b"\6", length=41 * 2**20), {1009}),
    "a length of more than 63 bits": (
        frame(BINARY, length=2**64 - 1),
        {1002, 1009},
    ),  # against the rules, and too long
}


@pytest.mark.parametrize("after_init", [False, True], ids=["at once", "after the init"])
@pytest.mark.parametrize("sent", ENDS)
def test_what_is_no_websocket_frame_ends_that_socket(raw, sent, after_init):
    peer = raw()
    if after_init:
        peer.tcp.sendall(frame(BINARY, INIT))
        peer.until(BINARY)
    data, codes = ENDS[sent]
    peer.tcp.sendall(data)
    assert peer.end() in codes


def test_half_a_frame_and_then_nothing_is_a_first_frame_that_does_not_come(raw):
    peer = raw()
    peer.tcp.sendall(frame(BINARY, INIT)[:-1])
    payload = peer.until(CLOSE)
    assert payload[2:].startswith(b"ws.timed_out_waiting_for_init#")


def test_a_flood_of_transport_pings_is_answered_and_harms_nobody(raw):
    peer = raw()
    peer.tcp.sendall(frame(PING, b"p") * 5_000)
    for _ in range(5_000):
        assert peer.until(PONG) == b"p"
    with contextlib.suppress(OSError):
        peer.tcp.sendall(frame(BINARY, INIT))
    assert isinstance(decode_to_client(peer.until(BINARY), 7), ToClientInit)
