"""One simulated run: a scenario from a seed, faults, then quiet, and the invariants all along."""

import random
from collections import Counter
from collections.abc import Set
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Count
from django.test import override_settings

from actors import codec
from actors.lifecycle import CrashPolicy, Created, Destroy, Life, Start
from actors.models import Actor
from actors.tasks import limits
from orchestrator import ids
from orchestrator.models import Namespace, SetAsideSignal, TimelineEntry
from orchestrator.workflow import mailbox
from runners.models import ActorName, Command, Runner, RunnerConfig, ServerlessConnection
from tests.simulation.connectors import Connector, grace
from tests.simulation.engine import Engine, quick_database
from tests.simulation.gateways import ANSWER_SECONDS, REQUEST_SECONDS, Gateway, Request
from tests.simulation.processes import Census, Process
from tests.simulation.world import NONE, Faults, Violation, World
from tests.support.replay import Departure, essence, replay

HOSTED = [Actor.Status.STARTING, Actor.Status.RUNNING, Actor.Status.STOPPING]
LIMITS = {"actor_stop_ms": 20_000}
"""Half an hour for an actor that never says stopped is too long a time to simulate."""
QUIET_SECONDS = 150.0
"""Longer than any deadline of the simulated settings: what is not settled by then never will be."""


@dataclass(frozen=True)
class Outcome:
    """What a run has seen."""

    seed: int
    steps: int
    counts: Counter[str]
    transcript: tuple[str, ...]  # its last lines


class Run:
    """A scenario: pools, runners, actors, and clients that call them."""

    def __init__(self, seed: int, faults: Faults, seconds: float) -> None:
        self.world = World(seed, faults)
        self._seconds = seconds
        self._generations: dict[str, int] = {}
        self._destroyed: set[str] = set()
        self._statuses: dict[str, str] = {}
        self._called: set[str] = set()  # while they stop
        self.actors: list[str] = []
        self.processes: list[Process] = []

    def __call__(self) -> Outcome:
        """Run to the end; raises Violation, with the transcript, if an invariant does not hold."""
        random.seed(self.world.seed)
        self._clean()
        epoch_us = lambda: int(self.world.now.timestamp() * 1_000_000)  # noqa: E731
        with ExitStack() as stack:
            stack.enter_context(ids.drawn_from(epoch_us, self.world.random.randrange))
            stack.enter_context(override_settings(ENV=settings.ENV.model_copy(update=LIMITS)))
            self.engine = Engine(self.world, self._check)
            stack.enter_context(self.engine.running())
            self._set_up()
            self.world.run(self._seconds)
            self.world.faults = NONE
            self._calm()
            self.world.run(QUIET_SECONDS)
            self._check_settled()
        self.world.counts["actors"] = len(self.actors)
        return Outcome(self.world.seed, self.world.steps, self.world.counts, tuple(self.world.transcript))

    def _clean(self) -> None:
        quick_database()
        for model in (Command, Actor, ServerlessConnection, Runner, RunnerConfig, ActorName):
            model.objects.all().delete()
        TimelineEntry.objects.all().delete()
        self.namespace, _ = Namespace.objects.get_or_create(name="default")
        SetAsideSignal.objects.all().delete()

    # The scenario

    def _set_up(self) -> None:
        world, draw = self.world, self.world.random
        self.census = Census(world)
        self.gateways = [Gateway(world, self.engine, self.processes) for _ in range(2)]
        self.pools = ["normal"]
        for name in ("serverless", "small"):
            self.pools.append(name)
            RunnerConfig.objects.create(
                namespace=self.namespace,
                name=name,
                kind=RunnerConfig.Kind.SERVERLESS,
                url="http://endpoint",
                slots_per_runner=3 if name == "serverless" else 1,
                max_runners=4,
                min_runners=0,
                request_lifespan=timedelta(seconds=25),
                drain_grace_period=grace(),
                poll_at=world.now + timedelta(days=1),
            )
        for _ in range(2):
            self._start_normal_runner()
        Connector(world, self.engine, self.census, self.processes)
        for _ in range(draw.randint(4, 9)):
            world.later(draw.uniform(0, 5), self._create)
        world.later(0.5, self._call)
        world.later(1.0, self._cut)
        world.later(1.0, self._kill)

    def _start_normal_runner(self, key: str | None = None) -> None:
        process = Process(self.world, self.engine, self.census, pool="normal", slots=3, key=key)
        self.processes.append(process)

    def _create(self) -> None:
        policy = self.world.random.choice(list(CrashPolicy))
        actor = Actor(
            namespace=self.namespace,
            name="simulated",
            pool_name=self.world.random.choice(self.pools),
            crash_policy=policy.value,
            created_at=self.world.now,
        )
        actor.state = Created(Life(policy), due=self.world.now)
        actor.save(force_insert=True)
        self.actors.append(actor.pk)
        mailbox.post("actors", actor.pk, codec.encode_signal(Start()))

    def _call(self) -> None:
        draw = self.world.random
        if self.world.seconds >= self._seconds:
            return
        self.world.later(draw.expovariate(3.0), self._call)
        if self.actors:
            for _ in range(draw.choice([1, 1, 1, 2, 5])):
                Request(draw.choice(self.gateways), draw.choice(self.actors), sleep=draw.random() < 0.3)
            if draw.random() < 0.01:
                victim = draw.choice(self.actors)
                mailbox.post("actors", victim, codec.encode_signal(Destroy()))

    def _cut(self) -> None:
        faults, draw = self.world.faults, self.world.random
        if faults.cut_every:
            connected = [process for process in self.processes if process.is_connected]
            if connected and self.world.chance(1.0, "a socket cut"):
                socket = draw.choice(connected).socket
                assert socket is not None
                socket.cut()
            self.world.later(draw.expovariate(1 / faults.cut_every), self._cut)

    def _kill(self) -> None:
        faults, draw = self.world.faults, self.world.random
        if faults.kill_every:
            living = [process for process in self.processes if process.alive]
            if living and self.world.chance(1.0, "a runner killed"):
                victim = draw.choice(living)
                victim.die("killed")
                if victim.pool == "normal":  # its supervisor starts it again, sometimes under the same key
                    key = victim.key if draw.random() < 0.5 else None
                    self.world.later(draw.uniform(0.1, 5), self._start_normal_runner, key)
            self.world.later(draw.expovariate(1 / faults.kill_every), self._kill)

    def _calm(self) -> None:
        """Let the normal pool have a runner again, whatever the faults have done to it."""
        if not any(one.alive and one.pool == "normal" and not one.leaving for one in self.processes):
            self._start_normal_runner()

    # The invariants

    def _check(self, woken: Set[str] = frozenset()) -> None:
        """What holds after every commit, in which these actors heard a wake."""
        used = dict(
            Actor.objects.filter(status__in=HOSTED).values_list("runner_id").annotate(held=Count("pk")).order_by()
        )
        for pk, slots in Runner.objects.values_list("pk", "used_slots"):
            if used.get(pk, 0) != slots:
                self.world.fail(f"I9: runner {pk} counts {slots} slots and hosts {used.get(pk, 0)} actors")
        rows = Actor.objects.values_list("pk", "generation", "status", "runner_id")
        for pk, generation, status, runner_id in rows:
            if generation < self._generations.get(pk, -1):
                self.world.fail(f"I1: {pk} went back from generation {self._generations[pk]} to {generation}")
            if generation > self._generations.get(pk, -1) and status == Actor.Status.STARTING:
                self._check_allocation(pk, runner_id)
            self._generations[pk] = generation
            self._check_wake(pk, status, heard=pk in woken)
            if status == Actor.Status.DESTROYED:
                self._destroyed.add(pk)
            elif pk in self._destroyed:
                self.world.fail(f"{pk} was destroyed and is {status}")
        if SetAsideSignal.objects.exists():
            self.world.fail(f"a signal was set aside: {SetAsideSignal.objects.first()}")

    def _check_allocation(self, pk: str, runner_id: str) -> None:
        """Nothing is given to a runner that drains, is gone or silent (I13)."""
        runner = Runner.objects.get(pk=runner_id)
        silent = self.world.now - runner.last_ping_at
        if runner.state != Runner.State.LIVE or silent > timedelta(milliseconds=settings.ENV.runner_eligible_ms):
            self.world.fail(f"I13: {pk} is given to {runner_id}, {runner.state} and silent for {silent}")

    def _check_wake(self, pk: str, status: str, heard: bool) -> None:
        """Who was called while it stopped does not stay asleep (I3)."""
        if self._statuses.get(pk) == Actor.Status.STOPPING and heard:
            self._called.add(pk)
        if status == Actor.Status.ASLEEP and pk in self._called:
            self.world.fail(f"I3: {pk} was called while it stopped, and sleeps")
        if status != Actor.Status.STOPPING:
            self._called.discard(pk)
        self._statuses[pk] = status

    def _check_settled(self) -> None:
        """What holds when the faults have stopped for long enough (I3, I4, I8, I16)."""
        self._check()
        for actor in Actor.objects.filter(pk__in=self.actors):
            self._check_timeline(actor)
        if self.engine.lost:
            self.world.fail(f"signals lost: {self.engine.lost[:3]}")
        for gateway in self.gateways:
            for request in gateway.requests:
                if request.age > REQUEST_SECONDS + ANSWER_SECONDS:
                    self.world.fail(f"I3: a request for {request.actor_id} waits since {request.age:.0f} s")
        for actor in Actor.objects.exclude(status__in=[Actor.Status.ASLEEP, Actor.Status.DESTROYED]):
            late = actor.due_at is None or actor.due_at < self.world.now - timedelta(seconds=5)
            if late:
                self.world.fail(f"I4: {actor.pk} is {actor.status} and overdue since {actor.due_at}")
            if actor.status in (Actor.Status.STARTING, Actor.Status.STOPPING):
                self.world.fail(f"I4: {actor.pk} is still {actor.status}")
            if actor.status == Actor.Status.RUNNING:
                hosts = [p for p in self.processes if p.is_connected and p.runner_id == actor.runner_id]
                instance = hosts[0].instances.get(actor.pk) if hosts else None
                if instance is None or instance.generation != actor.generation:
                    self.world.fail(f"{actor.pk} is said to run on {actor.runner_id}, which does not have it")
        for process in self.processes:
            for instance in process.instances.values():
                row = Actor.objects.get(pk=instance.actor_id)
                place = (instance.generation, process.runner_id)
                if not instance.mute and place != (row.generation, row.runner_id):
                    self.world.fail(f"{row.pk} has a zombie: {place}")
        self._check_requests()
        for runner in Runner.objects.exclude(state=Runner.State.LIVE):
            if runner.state != Runner.State.STOPPED or runner.due_at is not None:
                self.world.fail(f"runner {runner.pk} is still {runner.state}")

    def _check_requests(self) -> None:
        """Each runner of a serverless pool hangs on a request that will end it, or it would stay for ever."""
        named = ServerlessConnection.objects.exclude(state=ServerlessConnection.State.ENDED)
        live = Runner.objects.filter(state=Runner.State.LIVE).exclude(name="normal")
        for runner in live.exclude(pk__in=named.values("runner_id")):
            self.world.fail(f"runner {runner.pk} of {runner.name} hangs on no request")

    def _check_timeline(self, actor: Actor) -> None:
        """Its timeline leads to its row (I16), deadlines aside: a Tick is taken to have come in time."""
        entries = TimelineEntry.objects.filter(actor_id=actor.pk).order_by("at", "id").values_list("at", "data")
        try:
            state = replay(actor.crash_policy, actor.created_at, entries, limits())
        except Departure as departure:
            self.world.fail(f"I16: {actor.pk} is {departure}")
        if essence(state) != essence(actor.state):
            self.world.fail(f"I16: the timeline of {actor.pk} leads to {state}, and its row is {actor.state}")


def simulate(seed: int, *, seconds: float = 40.0, faults: Faults | None = None) -> Outcome:
    """Run one seed; raises Violation with the transcript in its notes."""
    run = Run(seed, faults if faults is not None else Faults(), seconds)
    try:
        return run()
    except (Exception, Violation) as error:
        error.add_note("\n".join(run.world.transcript))
        error.add_note(f"reproduce with: make simulate SEEDS={seed}")
        raise
