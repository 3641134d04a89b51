"""What an accepted connection inherits from the socket it came by."""

import socket

from orchestrator.server.listening import bind


def test_accepted_connections_send_at_once_and_notice_a_vanished_peer():
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
