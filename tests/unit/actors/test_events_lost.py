"""Events on their way from a runner to its actor, any of which may be lost: each acts once, and in order."""

from datetime import datetime, timedelta

from hypothesis import given, strategies as st

from actors import life
from actors.codec import decode_signal
from actors.lifecycle import decide
from orchestrator.ids import new_id
from runners.connection import Events
from runners.protocol.messages import ActorCheckpoint, EventActorSetAlarm, EventWrapper
from tests.unit.actors.lives import LIMITS, NOON

LATER = NOON + timedelta(hours=1)
RUNNER, ACTOR = new_id(), new_id()


class World:
    """A runner that sets alarms, the engine's end of its connection, a mailbox, and its actor."""

    def __init__(self):
        self.said: list[EventWrapper] = []
        self.events = Events(RUNNER)
        self.mailbox: list[life.Signal] = []
        self.actor: life.State = life.Running(
            life.Life(life.CrashPolicy.SLEEP, generation=0), RUNNER, -1, NOON, LATER
        )
        self.heard: list[datetime | None] = []

    def say(self):
        alarm = EventActorSetAlarm(4_000_000_000_000 + len(self.said))
        self.said.append(EventWrapper(ActorCheckpoint(ACTOR, 0, len(self.said)), alarm))
        self._post(self.events.hear([self.said[-1]], NOON))

    def repeat(self):
        self._post(self.events.repeat(NOON - LATER, NOON))

    def reconnect(self, new):
        """Come back on another connection, and say something new before what is old, if `new`."""
        self.events = Events(RUNNER, silent_since=NOON)
        if new:
            self.say()
        self._post(self.events.hear(self.said, NOON))
        self._post(self.events.returned(NOON))

    def _post(self, letters):
        self.mailbox += [decode_signal(signal) for _, signal in letters]

    def decide(self):
        """Have the actor hear what waits, and tell the connection what is dealt with."""
        waiting, self.mailbox = self.mailbox, []
        for signal in waiting:
            before = self.actor
            self.actor, _ = decide(before, signal, NOON, LIMITS)
            if self.actor != before:
                self.heard.append(self.actor.life.alarm_at)
            if signal.index <= self.actor.event_index:
                self.events.processed([(ACTOR, 0, signal.index, False)])


moves = st.lists(
    st.sampled_from(["say", "say", "say", "lose", "lose the first", "decide", "repeat", "reconnect", "blurt"])
)


@given(moves)
def test_every_event_acts_once_and_in_order_whatever_is_lost(script):
    world = World()
    for move in script:
        match move:
            case "lose":
                world.mailbox.clear()
            case "lose the first":
                del world.mailbox[:1]
            case "reconnect" | "blurt":
                world.reconnect(new=move == "blurt")
            case _:
                getattr(world, move)()
    world.repeat()
    world.decide()
    alarms = [event.inner.alarm_ts_ms for event in world.said]
    assert [round(at.timestamp() * 1000) for at in world.heard] == alarms
