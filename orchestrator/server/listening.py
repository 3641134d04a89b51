"""The socket a server listens on, made before the server so that both fail and behave the same.

The server itself listens, once it can be told to end and has loaded all it needs: until then clients are refused,
and try the next process, instead of waiting for one that boots and may never serve them.
"""

import contextlib
import ctypes
import errno
import socket
import struct
import sys

BACKLOG = 2048

_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_NO_SYN = [
    (0x30, 0, 0, 13),  # load the byte of the TCP header that holds its flags
    (0x45, 0, 1, 0x02),  # if SYN is set: the next step, else the one after
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # let it pass, whole
]
"""A filter (bpf(4)) that keeps a listening socket from hearing of new connections."""


class PortInUse(Exception):
    """Somebody else listens there already."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket to listen on, with `BACKLOG`; port 0 takes a free one.

    TCP keepalive is on, and accepted sockets inherit it: it ends HTTP connections whose peer has vanished. So is
    TCP_NODELAY, without which an answer in two writes waits 40 ms for the client's acknowledgement; asyncio sets
    it itself only on sockets that name their protocol.

    Raises:
        PortInUse: the message names the port.
        OSError: there is no such address here.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind(address[:2])
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} is in use") from error
        raise
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def waiting(listener: socket.socket) -> list[socket.socket]:
    """Accept and return the connections that wait, before the listener is closed, which would reset them.

    On Linux no more are begun from now on: who knocks gets no answer, knocks again a second later, and is refused.
    """
    _hear_no_knock(listener)
    found: list[socket.socket] = []
    with contextlib.suppress(OSError):  # none is left
        while True:
            client, _ = listener.accept()
            client.setblocking(False)
            found.append(client)
    return found


def _hear_no_knock(listener: socket.socket) -> None:
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    with contextlib.suppress(OSError):  # not everything that calls itself Linux can do it
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
