"""What holds whatever happens to a WebSocket: order, no gap, no duplicate, one close (DESIGN §9, I7)."""

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from

from gateway.errors import SocketGoingAway
from gateway.socket_tunnel import INDEXES, Close, Detach, Limits, Over, Phase, SocketTunnel, ToClient, ToRunner
from runners.protocol.messages import (
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)

OPEN = ToClientWebSocketOpen("actor", "/", {})


class Conversation(RuleBasedStateMachine):
    """A client that counts, an actor that counts, and an actor's storage: the last message it has kept.

    The actor is a strict one: like the npm client it drops what it has had, and a gap is fatal.
    """

    @initialize(can_hibernate=booleans(), before=integers(0, 3), first=sampled_from([1, INDEXES - 4]))
    def begin(self, can_hibernate, before, first):
        self.tunnel = SocketTunnel("ray", Limits())
        self.can_hibernate = can_hibernate
        self.said = self.heard = 0  # by the client, by the actor: how many messages
        self.answers = self.received = 0  # by the actor, by the client
        self.acked = 0
        self.in_flight = []  # to the actor
        self.closes = self.ends = self.told = 0
        self.knows = False  # the actor's storage: that the client has left
        self.ended = False  # by what neither of them does
        self.attached = True
        self.gone = False
        self.do(self.tunnel.connect(OPEN))
        for _ in range(before):
            self.client_speaks()
        self.tunnel.from_runner(ToServerWebSocketOpen(can_hibernate))
        self.first = first  # index of the first message: as if many had gone before
        self.tunnel._next = first
        self.do(self.tunnel.admit(0.0))

    def do(self, effects):
        for effect in effects:
            assert not self.ends, "nothing follows the end"
            match effect:
                case ToRunner():
                    assert self.attached
                    self.in_flight.append(effect)
                case ToClient(data):
                    assert int(data) == self.received
                    self.received += 1
                case Close():
                    self.closes += 1
                case Detach():
                    self.attached = False
                    self.in_flight.clear()  # whatever was on its way is lost with the life
                case Over():
                    self.ends += 1

    @rule()
    def client_speaks(self):
        if not self.gone and not self.closes:
            self.do(self.tunnel.from_client(b"%d" % self.said, True, 0.0))
            self.said += 1

    @rule(count=integers(1, 5))
    def the_actor_reads(self, count):
        for _ in range(count):
            if not self.in_flight:
                return
            message = self.in_flight.pop(0)
            match message.kind:
                case ToClientWebSocketMessage(data):
                    number = int(data)
                    assert message.index == (number + self.first) % INDEXES
                    assert number <= self.heard, "a gap"
                    assert self.can_hibernate or number == self.heard, "said twice"
                    self.heard = max(self.heard, number + 1)
                case ToClientWebSocketClose():
                    self.told += 1
                    self.knows = True
                    if not self.closes and not self.lossy:
                        assert self.heard == self.said, "closed before all was heard"

    lossy = False

    @precondition(lambda self: self.attached and not self.told)
    @rule()
    def the_actor_speaks(self):
        self.do(self.tunnel.from_runner(ToServerWebSocketMessage(b"%d" % self.answers, binary=True)))
        self.answers += not self.ends

    @precondition(lambda self: self.attached and self.knows)
    @rule()
    def the_actor_confirms_the_close(self):
        self.do(self.tunnel.from_runner(ToServerWebSocketClose(1000, None, hibernate=False)))

    @precondition(lambda self: self.attached)
    @rule(back=integers(0, 3))
    def the_actor_acknowledges(self, back):
        count = self.heard - back
        if count > 0:
            index = (count - 1 + self.first) % INDEXES
            self.do(self.tunnel.from_runner(ToServerWebSocketMessageAck(index)))

    @rule()
    def the_actor_stops(self):
        if self.attached:
            self.do(self.tunnel.stopped())

    @precondition(lambda self: self.attached)
    @rule()
    def the_actor_lets_go(self):
        self.do(self.tunnel.from_runner(ToServerWebSocketClose(None, None, hibernate=True)))

    @precondition(lambda self: self.attached and self.can_hibernate)
    @rule()
    def messages_are_lost(self):
        self.in_flight.clear()
        self.lossy = bool(self.ends)
        self.do(self.tunnel.lost())

    @precondition(lambda self: not self.attached)
    @rule()
    def the_actor_is_back(self):
        self.attached = True
        self.do(self.tunnel.resume(0.0))

    @rule()
    def the_client_leaves(self):
        if not self.gone and not self.closes:
            self.gone = True
            self.do(self.tunnel.client_left(1000, None, 0.0))

    @rule(destroyed=booleans())
    def it_ends(self, destroyed):
        if self.said > 20:
            self.ended = True
            self.do(self.tunnel.destroyed() if destroyed else self.tunnel.fail(SocketGoingAway()))

    @invariant()
    def there_is_one_end(self):
        if hasattr(self, "tunnel"):
            assert self.ends == (self.tunnel.phase is Phase.OVER)
            assert self.closes + self.gone <= 1 or self.closes <= 1
            assert self.told <= 1 or self.can_hibernate

    def teardown(self):
        """Whatever has happened: while the socket lives, an actor that comes back hears all there is."""
        if not hasattr(self, "tunnel"):
            return
        if self.ends:
            for after in (self.tunnel.destroyed, self.tunnel.stopped, self.tunnel.lost):
                self.do(after())
            self.do(self.tunnel.client_left(1000, None, 0.0))
            self.do(self.tunnel.fail(SocketGoingAway()))
        if not self.can_hibernate or self.ended or self.closes or self.lossy:
            return
        if not self.attached:
            self.the_actor_is_back()
        self.the_actor_reads(10_000)
        assert self.heard == self.said
        assert self.knows == self.gone


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
