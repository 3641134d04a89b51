"""One WebSocket as a conversation: what happens, and exactly what follows."""

import pytest

from gateway.errors import SocketGoingAway
from gateway.socket_tunnel import (
    DOWNSTREAM,
    Accepted,
    Close,
    Detach,
    Limits,
    Over,
    Phase,
    Refused,
    SocketTunnel,
    ToClient,
    ToRunner,
    Wake,
)
from runners.protocol.messages import (
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)

OPEN = ToClientWebSocketOpen("actor", "/", {})
SAYS = ToServerWebSocketMessage(b"hi", binary=False)
HEARS = ToClient(b"hi", binary=False)
NO_CODE = ToClientWebSocketClose(1000, None)


def message(data):
    return ToClientWebSocketMessage(data, binary=True)


def opened(*, can_hibernate=False, **limits):
    """Return a tunnel that is open; the next index is 1."""
    tunnel = SocketTunnel("ray", Limits(**limits))
    tunnel.connect(OPEN)
    tunnel.from_runner(ToServerWebSocketOpen(can_hibernate))
    assert tunnel.admit(0.0) == []
    return tunnel


def says(tunnel, data, now=0.0):
    return tunnel.from_client(data, True, now)


class TestTheBeginning:
    def test_open_is_index_0_and_what_comes_early_is_kept_for_later(self):
        tunnel = SocketTunnel("ray", Limits())
        assert says(tunnel, b"a") == []
        assert tunnel.connect(OPEN) == [ToRunner(0, OPEN)]
        assert says(tunnel, b"b") == []
        assert tunnel.held_bytes == 2
        assert tunnel.from_runner(SAYS) == []
        assert tunnel.from_runner(ToServerWebSocketOpen(False)) == [Accepted(False)]
        assert says(tunnel, b"c") == []
        assert tunnel.admit(0.0) == [
            HEARS,
            ToRunner(1, message(b"a")),
            ToRunner(2, message(b"b")),
            ToRunner(3, message(b"c")),
        ]
        assert tunnel.held_bytes == 0

    @pytest.mark.parametrize(
        "kind", [ToServerWebSocketClose(1011, "no", False), ToServerResponseAbort()], ids=["close", "abort"]
    )
    def test_refused_it_is_asked_anew_from_index_0(self, kind):
        tunnel = SocketTunnel("ray", Limits())
        says(tunnel, b"a")
        tunnel.connect(OPEN)
        tunnel.from_runner(SAYS)
        assert tunnel.from_runner(kind) == [Refused()]
        assert tunnel.give_up() == [ToRunner(1, DOWNSTREAM)]
        assert tunnel.give_up() == []
        assert tunnel.connect(OPEN) == [ToRunner(0, OPEN)]
        tunnel.from_runner(ToServerWebSocketOpen(True))
        assert tunnel.admit(0.0) == [ToRunner(1, message(b"a"))]

    def test_a_close_right_after_the_accept_follows_what_was_said(self):
        tunnel = SocketTunnel("ray", Limits())
        tunnel.connect(OPEN)
        tunnel.from_runner(ToServerWebSocketOpen(False))
        assert tunnel.from_runner(SAYS) == []
        assert tunnel.from_runner(ToServerWebSocketClose(4000, "bye", False)) == []
        says(tunnel, b"too late")
        assert tunnel.admit(0.0) == [HEARS, ToRunner(1, NO_CODE), Close(4000, "bye"), Over()]

    def test_a_client_that_leaves_meanwhile_is_told_of_if_anybody_was_asked(self):
        tunnel = SocketTunnel("ray", Limits())
        assert tunnel.client_left(1001, None, 0.0) == [Over()]
        tunnel = SocketTunnel("ray", Limits())
        tunnel.connect(OPEN)
        assert tunnel.client_left(1001, None, 0.0) == [ToRunner(1, ToClientWebSocketClose(1001, None)), Over()]

    def test_an_actor_that_says_too_much_before_it_is_open_loses_the_socket(self):
        tunnel = SocketTunnel("ray", Limits(ahead_bytes=3))
        tunnel.connect(OPEN)
        tunnel.from_runner(ToServerWebSocketOpen(False))
        tunnel.from_runner(SAYS)
        tunnel.from_runner(SAYS)
        close = Close(1011, "guard.websocket_client_too_slow#ray", at_once=True)
        assert tunnel.admit(0.0) == [ToRunner(1, DOWNSTREAM), close, Over()]


class TestOpen:
    def test_messages_pass_both_ways(self):
        tunnel = opened()
        assert says(tunnel, b"a") == [ToRunner(1, message(b"a"))]
        assert tunnel.from_client(b"b", False, 0.0) == [ToRunner(2, ToClientWebSocketMessage(b"b", False))]
        assert tunnel.from_runner(SAYS) == [HEARS]

    @pytest.mark.parametrize(
        "kind",
        [ToServerWebSocketOpen(True), ToServerWebSocketMessageAck(1), ToServerResponseChunk(b"", True)],
        ids=["open", "ack", "chunk"],
    )
    def test_what_means_nothing_is_dropped(self, kind):
        assert opened().from_runner(kind) == []

    @pytest.mark.parametrize(
        ("code", "reason", "told"),
        [
            (4000, "why", Close(4000, "why")),
            (1001, None, Close(1001, "")),
            (None, None, Close(1000, "ws.closed")),
            (None, "why", Close(1000, "why")),
        ],
        ids=["both", "code", "nothing", "reason"],
    )
    def test_the_actor_closes(self, code, reason, told):
        tunnel = opened()
        says(tunnel, b"a")
        closing = ToServerWebSocketClose(code, reason, hibernate=False)
        assert tunnel.from_runner(closing) == [ToRunner(2, NO_CODE), told, Over()]
        assert tunnel.from_runner(closing) == tunnel.client_left(1000, None, 0.0) == says(tunnel, b"b") == []

    def test_one_that_may_not_hibernate_is_closed_even_if_the_actor_says_hibernate(self):
        effects = opened().from_runner(ToServerWebSocketClose(None, None, hibernate=True))
        assert effects == [ToRunner(1, NO_CODE), Close(1000, "ws.closed"), Over()]

    def test_the_client_closes(self):
        assert opened().client_left(4000, "why", 0.0) == [ToRunner(1, ToClientWebSocketClose(4000, "why")), Over()]

    @pytest.mark.parametrize("end", [SocketTunnel.stopped, SocketTunnel.destroyed], ids=["stopped", "destroyed"])
    def test_the_actor_ends(self, end):
        stopped = ToClientWebSocketClose(1000, "actor.stopped")
        assert end(opened()) == [ToRunner(1, stopped), Close(1000, "actor.stopped"), Over()]

    def test_the_gateway_fails(self):
        tunnel = opened()
        effects = tunnel.fail(SocketGoingAway())
        assert effects == [ToRunner(1, DOWNSTREAM), Close(1012, "ws.going_away#ray"), Over()]
        assert tunnel.fail(SocketGoingAway()) == []

    def test_a_runner_that_cannot_take_more_ends_it(self):
        effects = opened().from_runner(ToServerResponseAbort())
        assert effects == [ToRunner(1, DOWNSTREAM), Close(1011, "guard.service_unavailable#ray"), Over()]

    def test_a_message_too_long_for_the_tunnel_ends_it(self):
        effects = says(opened(message_bytes=2), b"abc")
        assert effects == [ToRunner(1, DOWNSTREAM), Close(1009, "guard.websocket_message_too_large#ray"), Over()]

    def test_messages_that_are_lost_end_it(self):
        effects = opened().lost()
        assert effects == [ToRunner(1, DOWNSTREAM), Close(1011, "guard.websocket_tunnel_lost#ray"), Over()]

    def test_the_index_wraps(self):
        tunnel = opened()
        for _ in range(2**16 - 1):
            says(tunnel, b"")
        assert [says(tunnel, b"")[0].index for _ in range(2)] == [0, 1]


class TestAcknowledgements:
    def test_everything_up_to_an_index_is_forgotten(self):
        tunnel = opened(can_hibernate=True)
        for data in (b"a", b"bb", b"ccc"):
            says(tunnel, data)
        assert tunnel.unacked_bytes == 6
        tunnel.from_runner(ToServerWebSocketMessageAck(2))
        assert tunnel.unacked_bytes == 3
        assert tunnel.lost() == [ToRunner(3, message(b"ccc"))]

    @pytest.mark.parametrize("index", [0, 1, 4, 40_000], ids=["open", "again", "not sent yet", "far off"])
    def test_an_ack_of_nothing_that_is_kept_means_nothing(self, index):
        tunnel = opened(can_hibernate=True)
        for data in (b"a", b"b", b"c"):
            says(tunnel, data)
        tunnel.from_runner(ToServerWebSocketMessageAck(1))
        tunnel.from_runner(ToServerWebSocketMessageAck(index))
        assert [effect.index for effect in tunnel.lost()] == [2, 3]

    def test_they_hold_over_the_wrap(self):
        tunnel = opened(can_hibernate=True)
        for number in range(1, 2**16 + 3):
            says(tunnel, b"x")
            if number == 2**16 - 3:
                tunnel.from_runner(ToServerWebSocketMessageAck(number))
        assert [effect.index for effect in tunnel.lost()] == [2**16 - 2, 2**16 - 1, 0, 1, 2]
        tunnel.from_runner(ToServerWebSocketMessageAck(0))
        assert [effect.index for effect in tunnel.lost()] == [1, 2]

    def test_too_many_unacknowledged_messages_end_it(self):
        tunnel = opened(can_hibernate=True, unacked_messages=2)
        for _ in range(2):
            says(tunnel, b"")
        tunnel.from_runner(ToServerWebSocketMessageAck(1))
        says(tunnel, b"")
        effects = says(tunnel, b"")
        close = Close(1011, "guard.websocket_pending_limit_reached#ray")
        assert effects == [ToRunner(5, DOWNSTREAM), close, Over()]

    def test_too_many_unacknowledged_bytes_end_it_but_not_those_that_were_acknowledged(self):
        tunnel = opened(can_hibernate=True, unacked_bytes=10)
        for number in range(1, 21):
            assert says(tunnel, b"x" * 9) == [ToRunner(number, message(b"x" * 9))]
            tunnel.from_runner(ToServerWebSocketMessageAck(number))
        says(tunnel, b"x" * 9)
        assert says(tunnel, b"xx")[1] == Close(1011, "guard.websocket_pending_limit_reached#ray")

    def test_too_old_an_unacknowledged_message_ends_it(self):
        tunnel = opened(can_hibernate=True, unacked_seconds=30.0)
        says(tunnel, b"a", now=100.0)
        says(tunnel, b"b", now=110.0)
        assert tunnel.check(130.0) == []
        tunnel.from_runner(ToServerWebSocketMessageAck(1))
        assert tunnel.check(140.0) == []
        assert tunnel.check(140.1)[1] == Close(1011, "guard.websocket_garbage_collected#ray")

    def test_time_does_not_count_while_the_actor_sleeps(self):
        tunnel = opened(can_hibernate=True, unacked_seconds=30.0)
        says(tunnel, b"a", now=0.0)
        tunnel.stopped()
        assert tunnel.check(1000.0) == []
        tunnel.resume(1000.0)
        assert tunnel.check(1030.0) == []
        assert tunnel.check(1030.1) != []


class TestHibernation:
    def test_a_stop_lets_go_of_the_runner_only(self):
        tunnel = opened(can_hibernate=True)
        assert tunnel.stopped() == [Detach()]
        assert tunnel.stopped() == []
        assert not tunnel.wants_actor
        assert says(tunnel, b"a") == [Wake()]
        assert tunnel.wants_actor
        assert tunnel.resume(0.0) == [ToRunner(1, message(b"a"))]
        assert says(tunnel, b"b") == [ToRunner(2, message(b"b"))]

    def test_unacknowledged_messages_wake_and_are_said_again(self):
        tunnel = opened(can_hibernate=True)
        says(tunnel, b"a")
        says(tunnel, b"b")
        tunnel.from_runner(ToServerWebSocketMessageAck(1))
        assert tunnel.stopped() == [Detach(), Wake()]
        assert tunnel.resume(0.0) == [ToRunner(2, message(b"b"))]

    def test_the_actor_may_ask_for_it(self):
        tunnel = opened(can_hibernate=True)
        assert tunnel.from_runner(ToServerWebSocketClose(None, None, hibernate=True)) == [Detach()]
        assert tunnel.phase is Phase.HIBERNATING

    def test_the_next_life_may_speak_first(self):
        tunnel = opened(can_hibernate=True)
        says(tunnel, b"a")
        tunnel.stopped()
        assert tunnel.from_runner(SAYS) == [HEARS]
        assert tunnel.from_runner(ToServerWebSocketMessageAck(1)) == []
        assert tunnel.resume(0.0) == []

    def test_the_next_life_may_close_it(self):
        tunnel = opened(can_hibernate=True)
        tunnel.stopped()
        assert tunnel.from_runner(ToServerWebSocketClose(1000, "unknown", False)) == [
            Close(1000, "unknown"),
            Over(),
        ]

    def test_a_client_that_leaves_is_told_of_at_the_next_life_after_its_last_words(self):
        tunnel = opened(can_hibernate=True)
        tunnel.stopped()
        says(tunnel, b"a")
        assert tunnel.client_left(4000, "why", 0.0) == [Wake()]
        assert tunnel.client_left(1000, None, 0.0) == says(tunnel, b"b") == tunnel.from_runner(SAYS) == []
        assert tunnel.wants_actor
        close = ToClientWebSocketClose(4000, "why")
        assert tunnel.resume(0.0) == [ToRunner(1, message(b"a")), ToRunner(2, close), Over()]

    @pytest.mark.parametrize(
        "end", [SocketTunnel.destroyed, lambda tunnel: tunnel.fail(SocketGoingAway())], ids=["destroyed", "failed"]
    )
    def test_nobody_hears_of_the_end_of_a_client_that_has_left(self, end):
        tunnel = opened(can_hibernate=True)
        tunnel.stopped()
        tunnel.client_left(1000, None, 0.0)
        assert end(tunnel) == [Over()]

    @pytest.mark.parametrize(
        "asleep",
        [SocketTunnel.stopped, lambda tunnel: tunnel.from_runner(ToServerWebSocketClose(None, None, True))],
        ids=["stopped", "hibernates"],
    )
    def test_a_client_that_leaves_as_the_actor_falls_asleep_is_told_of_in_the_next_life(self, asleep):
        tunnel = opened(can_hibernate=True)
        says(tunnel, b"a")
        farewell = ToRunner(2, ToClientWebSocketClose(4000, "why"))
        assert tunnel.client_left(4000, "why", 0.0) == [farewell]
        assert says(tunnel, b"b") == tunnel.client_left(1000, None, 0.0) == tunnel.from_runner(SAYS) == []
        assert asleep(tunnel) == [Detach(), Wake()]
        assert tunnel.wants_actor
        assert tunnel.resume(0.0) == [ToRunner(1, message(b"a")), farewell, Over()]

    @pytest.mark.parametrize(
        "over",
        [
            SocketTunnel.destroyed,
            lambda tunnel: tunnel.fail(SocketGoingAway()),
            lambda tunnel: tunnel.from_runner(ToServerWebSocketClose(4000, "why", False)),
            lambda tunnel: tunnel.check(30.1),
        ],
        ids=["destroyed", "failed", "confirmed", "unconfirmed for too long"],
    )
    def test_a_client_that_has_left_is_done_with_once_the_actor_confirms_it(self, over):
        tunnel = opened(can_hibernate=True)
        tunnel.client_left(4000, "why", 0.0)
        assert tunnel.check(30.0) == []
        assert over(tunnel) == [Over()]
        assert tunnel.stopped() == []

    def test_what_is_lost_of_a_client_that_has_left_is_said_again(self):
        tunnel = opened(can_hibernate=True)
        says(tunnel, b"a")
        [farewell] = tunnel.client_left(4000, "why", 0.0)
        assert tunnel.lost() == [ToRunner(1, message(b"a")), farewell]

    def test_too_much_for_a_sleeping_actor_ends_it(self):
        tunnel = opened(can_hibernate=True, unacked_bytes=2)
        tunnel.stopped()
        says(tunnel, b"ab")
        assert says(tunnel, b"c") == [Close(1011, "guard.websocket_pending_limit_reached#ray"), Over()]

    def test_destroyed_in_its_sleep_it_is_closed(self):
        tunnel = opened(can_hibernate=True)
        tunnel.stopped()
        assert tunnel.destroyed() == [Close(1000, "actor.stopped"), Over()]

    def test_a_loss_in_sleep_means_nothing(self):
        tunnel = opened(can_hibernate=True)
        says(tunnel, b"a")
        tunnel.stopped()
        assert tunnel.lost() == []
