"""One actor between gateways, runners and the clock, whose signals come twice, late, in any order, or not at all.

Each source keeps its own order; between them there is none. Runners say again what they have said; everything
else that is lost is lost.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given, settings, strategies as st

from actors import life
from actors.codec import decode_signal
from actors.lifecycle import decide, due_at
from actors.story import tell
from tests.unit.actors.lives import LIMITS, NOON
from tests.unit.actors.test_story import essence

SECOND = timedelta(seconds=1)
PAUSES_MS = (1, 1, 400, 900, 1_500, 2_500, 4_000, 9_000, 15_000, 31_000, 61_000, 1_900_000)
Living = tuple[str, int]
"""Runner and generation."""


@dataclass
class FakeRunner:
    """A runner as the protocol has it: commands in, in order; events out, in order, as often as need be."""

    commands: list[life.Dispatch | life.Halt] = field(default_factory=list)
    said: list[life.FromRunner] = field(default_factory=list)
    generation: int | None = None  # of the copy it has
    index: int = -1
    drains: bool = False


class World:
    """What may happen to one actor, and what must hold whatever does (DESIGN §9)."""

    def __init__(self, policy: life.CrashPolicy) -> None:
        self.now = NOON
        self.state: life.State = life.Created(life.Life(policy), NOON)
        self.first = self.state
        self.runners: dict[str, FakeRunner] = {}
        self.on_their_way: dict[str, list[life.Signal]] = {}
        self.told: list[tuple[dict[str, object], str, object]] = []
        self.slots: list[str] = []
        self.given_up: set[Living] = set()
        self.called_while_it_stopped = False
        self.born = 0

        self.come(0)
        self.post("api", life.Start())

    # What the world does

    def call(self, draw: int) -> None:
        self.post("gateway", life.Wake())

    def ask(self, draw: int) -> None:
        self.post("api", life.Sleep() if draw % 2 else life.Reschedule())

    def come(self, draw: int) -> None:
        if len(self.runners) < 3:
            self.born += 1
            self.runners[f"runner-{self.born}"] = FakeRunner()
            self.post("hosting", life.SlotFree())

    def leave(self, draw: int) -> None:
        if self.runners:
            name = list(self.runners)[draw % len(self.runners)]
            self.runners[name].drains = True
            self.post("hosting", life.RunnerDraining(name, self.now + 10 * SECOND))

    def die(self, draw: int) -> None:
        if self.runners:
            name = list(self.runners)[draw % len(self.runners)]
            del self.runners[name]
            self.post("hosting", life.RunnerLost(name, self.now - draw % 20 * SECOND))

    def obey(self, draw: int) -> None:
        waiting = [(name, one) for name, one in self.runners.items() if one.commands]
        if not waiting:
            return
        name, one = waiting[draw % len(waiting)]
        command = one.commands.pop(0)
        if isinstance(command, life.Dispatch):
            self.no_other_copy(name, command.generation)
            one.generation, one.index, one.said = command.generation, -1, []
            self.say(name, life.RunningReport())
        elif one.generation == command.generation:
            self.say(name, life.StoppedReport(ok=draw % 2 == 0))
            one.generation = None

    def wish(self, draw: int) -> None:
        hosts = [(name, one) for name, one in self.runners.items() if one.generation is not None]
        if not hosts:
            return
        name, one = hosts[draw % len(hosts)]
        match draw % 16:
            case 0:
                self.say(name, life.StopIntent())
            case 1:
                self.say(name, life.AlarmReport(None))
            case 2 | 3:
                self.say(name, life.StoppedReport(ok=False, message="boom"))
                one.generation = None
            case 4 | 5 | 6 | 7 | 8:
                self.say(name, life.AlarmReport(self.now + (draw // 16 * 2 - 4) * SECOND))
            case _:
                self.say(name, life.SleepIntent())

    def pass_time(self, draw: int) -> None:
        self.now += timedelta(milliseconds=PAUSES_MS[draw % len(PAUSES_MS)])
        self.hear(life.Tick())

    # What the network does

    def deliver(self, draw: int) -> None:
        waiting = [signals for signals in self.on_their_way.values() if signals]
        if waiting:
            signal = waiting[draw % len(waiting)].pop(0)
            for _ in range(1 + (draw % 5 == 0)):
                self.hear(signal)

    def lose(self, draw: int) -> None:
        waiting = [signals for signals in self.on_their_way.values() if signals]
        if waiting:
            waiting[draw % len(waiting)].pop(0)

    def repeat(self, draw: int) -> None:
        for name, one in self.runners.items():
            self.on_their_way.setdefault(name, []).extend(one.said)

    # The workflow

    def hear(self, signal: life.Signal) -> None:
        before, was_called = self.state, self.called_while_it_stopped
        after, effects = decide(before, signal, self.now, LIMITS)
        for arrow in tell("actor", signal, before, after, effects):
            if "signal" in arrow.data:
                self.told.append((arrow.data["signal"], arrow.data["state"], self.now))
        self.state = after
        self.stale_is_nothing(before, signal)
        if isinstance(before, life.Hosted) and not isinstance(after, life.Hosted):
            self.called_while_it_stopped = False
            if not isinstance(signal, life.FromRunner):  # the runner is gone, or has not answered in time
                self.given_up.add((before.runner_id, before.life.generation))
            assert not (was_called and isinstance(after, life.Asleep)), "I3: it was called, and sleeps"
        elif isinstance(after, life.Stopping) and isinstance(before, life.Stopping):
            self.called_while_it_stopped |= isinstance(signal, life.Wake)
        self.generations_grow(before, effects)
        self.alarms_are_kept(before, signal)
        self.failures_alone_delay(before, signal)
        self.who_waits_has_a_deadline()
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: life.Effect) -> None:
        match effect:
            case life.Allocate():
                free = [name for name, one in self.runners.items() if not one.drains]
                self.hear(life.Allocated(free[0]) if free else life.NoSlot(on_demand=True))
            case life.Dispatch(runner_id):
                self.slots.append(runner_id)
                if runner_id in self.runners:
                    self.runners[runner_id].commands.append(effect)
            case life.Halt(runner_id) if runner_id in self.runners:
                self.runners[runner_id].commands.append(effect)
            case life.Deallocate(runner_id):
                self.slots.remove(runner_id)

    # The invariants

    def no_other_copy(self, starts_at: str, generation: int) -> None:
        """I1: of two that live at once, one was given up for want of any answer; its stop is on its way."""
        if (starts_at, generation) in self.given_up:
            return
        for name, one in self.runners.items():
            if one.generation is not None and (name, one.generation) not in self.given_up:
                raise AssertionError(f"I1: {name} still has {one.generation} when {generation} starts")

    def generations_grow(self, before: life.State, effects: list[life.Effect]) -> None:
        """I1: by one, when a slot is given."""
        started = [effect.generation for effect in effects if isinstance(effect, life.Dispatch)]
        grown = list(range(before.life.generation + 1, self.state.life.generation + 1))
        assert started == grown, f"I1: {before} to {self.state} with {effects}"

    def stale_is_nothing(self, before: life.State, signal: life.Signal) -> None:
        """I2: of another runner or generation nothing is applied."""
        if not isinstance(signal, life.FromRunner):
            return
        present = isinstance(before, life.Hosted) and (before.runner_id, before.life.generation) == (
            signal.runner_id,
            signal.generation,
        )
        assert present or self.state == before, f"I2: {signal} changed {before}"

    def alarms_are_kept(self, before: life.State, signal: life.Signal) -> None:
        """I11: an alarm goes when it is due and its actor runs, or when that says so; it wakes whoever sleeps."""
        alarm = before.life.alarm_at
        told = isinstance(signal, life.FromRunner) and isinstance(signal.report, life.AlarmReport)
        if alarm is not None and self.state.life.alarm_at is None and not told:
            assert alarm <= self.now, f"I11: {alarm} is gone at {self.now}"
            spent = self.state.life.alarm_spent_at == alarm
            ran = isinstance(before, life.Running)
            assert spent or ran, f"I11: {alarm} did nothing: {before} to {self.state}"
        if isinstance(self.state, life.Asleep) and self.state != before:
            assert self.state.life.alarm_at is None or self.state.life.alarm_at > self.now, "I11: it sleeps on"

    def failures_alone_delay(self, before: life.State, signal: life.Signal) -> None:
        """I14: only who has failed waits before the next attempt; one that stops as it was asked to has not."""
        ended = isinstance(before, life.Stopping) and not isinstance(self.state, life.Hosted)
        if ended and isinstance(signal, life.FromRunner) and before.reason is not life.StopReason.STOP:
            assert self.state.life.failure is None, f"I14: {self.state} after {before}"
        if isinstance(self.state, life.Backoff) and not isinstance(before, life.Backoff):
            failure = self.state.life.failure
            assert failure is not None, "I14: a delay after no failure"
            assert failure.kind is not life.FailureKind.NO_CAPACITY, "I14: a delay for want of a slot"

    def who_waits_has_a_deadline(self) -> None:
        """I4."""
        if not isinstance(self.state, life.Asleep | life.Destroyed):
            assert due_at(self.state) is not None, f"I4: {self.state}"

    def slots_follow_from_the_state(self) -> None:
        """I9."""
        assert self.slots == ([self.state.runner_id] if isinstance(self.state, life.Hosted) else []), "I9"

    def settle(self) -> None:
        """I4 and I16: when nothing more goes wrong it settles, and its timeline tells how it came there."""
        for _ in range(60):
            self.settle_a_little()
            if self.is_settled():
                break
        assert self.is_settled(), f"I4: still {self.state}"
        for name, one in self.runners.items():
            held = isinstance(self.state, life.Hosted) and self.state.runner_id == name
            assert one.generation is None or held, f"I4: {name} keeps {one.generation} though it is {self.state}"
        state: life.State = self.first
        for encoded, name, now in self.told:
            state, _ = decide(state, decode_signal(encoded), now, LIMITS)
            assert type(state).__name__.lower() == name, "I16"
        assert essence(state) == essence(self.state), "I16"

    def is_settled(self) -> bool:
        """Whether it runs, sleeps, is gone, or waits for a runner that is not there."""
        nobody = all(one.drains for one in self.runners.values())
        rests = isinstance(self.state, life.Running | life.Asleep | life.Destroyed)
        return (rests or (isinstance(self.state, life.Pending) and nobody)) and not any(
            one.commands for one in self.runners.values()
        )

    def settle_a_little(self) -> None:
        while any(one.commands for one in self.runners.values()):
            self.obey(0)
        self.repeat(0)
        for signals in self.on_their_way.values():
            while signals:
                self.hear(signals.pop(0))
        if isinstance(self.state, life.Hosted) and self.state.runner_id not in self.runners:
            self.hear(life.RunnerLost(self.state.runner_id, self.now))
        due = due_at(self.state)
        if due is not None and not self.is_settled():
            self.now = max(self.now, due)
            self.hear(life.Tick())

    # Helpers

    def post(self, source: str, signal: life.Signal) -> None:
        self.on_their_way.setdefault(source, []).append(signal)

    def say(self, name: str, report: life.Report) -> None:
        one = self.runners[name]
        assert one.generation is not None
        one.index += 1
        event = life.FromRunner(name, one.generation, one.index, report, self.now)
        one.said.append(event)
        self.post(name, event)


ACTIONS = [
    *[World.deliver] * 10,
    *[World.obey] * 7,
    *[World.wish] * 5,
    *[World.call] * 3,
    *[World.pass_time] * 3,
    *[World.repeat, World.come, World.lose, World.leave, World.die, World.ask],
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(life.CrashPolicy), st.binary(min_size=150, max_size=300))
def test_an_actor_keeps_every_invariant_in_an_unreliable_world(policy, choices):
    world = World(policy)
    for action, draw in zip(choices[::2], choices[1::2], strict=False):
        ACTIONS[action % len(ACTIONS)](world, draw)
        world.slots_follow_from_the_state()
    world.settle()
