"""The actor workflow on real stores: its tasks called as functions, races with real threads."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from actors import hosting, life, tasks
from actors.codec import decode_signal
from actors.lifecycle import decide
from actors.models import Actor
from orchestrator.models import SetAsideSignal, TimelineEntry
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox, timers
from runners.models import Command, Runner, RunnerConfig, ServerlessConnection
from runners.protocol import codec
from runners.protocol.messages import ActorCheckpoint, CommandStartActor, CommandStopActor
from tests.support.management import make_actor, make_pool, make_runner, signals
from tests.support.turns import SOCKET, connect, post, settle, turn

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
PATIENCE_S = 10.0


def new_actor(namespace, **columns) -> Actor:
    """Store an actor as its creation does."""
    now = timezone.now()
    actor = make_actor(namespace, status="created", state_due_at=now, due_at=now, **columns)
    post(actor, life.Start())
    return Actor.objects.get(pk=actor.pk)


def new_runner(namespace, key="r", *, slots=1, connected=True, **columns) -> Runner:
    now = timezone.now()
    columns = {"last_ping_at": now, "connected_at": now, "due_at": now + 15 * SECOND} | columns
    return make_runner(namespace, key, total_slots=slots, socket_id=SOCKET if connected else "", **columns)


def pending(namespace, seconds_ago: float, **columns) -> Actor:
    """Store an actor that has waited for a slot for so long, and has looked a moment ago."""
    now = timezone.now()
    waits = {"status": "pending", "cause": "alarm", "pending_at": now - seconds_ago * SECOND}
    due = {"state_due_at": now + SECOND, "due_at": now + SECOND}
    return make_actor(namespace, generation=0, **waits | due | columns)


def hosted(namespace, runner, *, status="running", **columns) -> Actor:
    """Store an actor that holds a slot of a runner, which counts it already."""
    now = timezone.now()
    columns = {"connectable_at": now, "state_due_at": now + MINUTE, "due_at": now + MINUTE} | columns
    Runner.objects.filter(pk=runner.pk).update(used_slots=runner.used_slots + 1)
    runner.refresh_from_db()
    return make_actor(namespace, status=status, generation=0, runner_id=runner.pk, event_index=0, **columns)


def says(runner, report, index=1, generation=0) -> life.FromRunner:
    return life.FromRunner(runner.pk, generation, index, report)


def log(runner) -> list[tuple[int, str, str, int, int]]:
    """Return the runner's command log: seq, kind, actor, generation, index."""
    rows = Command.objects.filter(runner=runner).order_by("seq")
    return list(rows.values_list("seq", "kind", "actor_id", "generation", "index"))


def arrows(actor) -> list[str]:
    found = TimelineEntry.objects.filter(actor_id=actor.pk)
    return [f"{arrow.source} > {arrow.target}: {arrow.label}" for arrow in found]


def now_is(actor) -> tuple[str, int, str]:
    actor.refresh_from_db()
    return actor.status, actor.generation, actor.runner_id


@contextmanager
def hearing(pattern: str):
    """Give a function that returns the next message on the channels, as channel and payload."""
    with get_redis().pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe(pattern)
        heard.get_message(timeout=PATIENCE_S)

        def next_message(timeout: float = PATIENCE_S) -> tuple[str, bytes] | None:
            message = heard.get_message(timeout=timeout)
            return None if message is None else (message["channel"].decode(), message["data"])

        yield next_message


def at_once(*jobs) -> None:
    """Run the jobs in threads of their own."""
    failures = []

    def run(job) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


# A slot from nowhere


def test_a_new_actor_waits_for_a_runner_and_is_started_by_it(namespace):
    make_pool(namespace)
    actor = new_actor(namespace, crash_policy="restart", name="chat", key="room/1", input=b"\x01\x02")
    settle()
    assert now_is(actor) == ("pending", -1, "")
    assert actor.failure["kind"] == "no_capacity"

    runner = new_runner(namespace)
    connect(runner)
    settle()

    assert now_is(actor) == ("starting", 0, runner.pk)
    assert actor.failure is None
    runner.refresh_from_db()
    assert (runner.used_slots, runner.command_seq) == (1, 1)
    [command] = Command.objects.all()
    [wrapper] = codec.decode_to_client(bytes(command.frame), 7).commands
    assert wrapper.checkpoint == ActorCheckpoint(actor.pk, 0, 0)
    assert isinstance(wrapper.inner, CommandStartActor)
    config = wrapper.inner.config
    assert (config.name, config.key, config.input) == ("chat", "room/1", b"\x01\x02")
    assert log(runner) == [(1, "start", actor.pk, 0, 0)]
    assert arrows(actor) == [
        "User > Actor workflow: create",
        "Actor workflow > Actor workflow: allocate: no runner free, pending",
        "Actor workflow > Serverless: bump",
        "Runner workflow > Actor workflow: allocate pending",
        "Actor workflow > Runner: StartActor",
    ]


def test_a_serverless_pool_is_told_and_wants_a_runner(namespace):
    pool = make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=900 * SECOND)
    actor = new_actor(namespace)
    settle()
    assert now_is(actor)[0] == "pending"
    pool.refresh_from_db()
    assert pool.desired == 1
    assert ServerlessConnection.objects.filter(pool=pool, state="wanted").count() == 1


def test_a_new_actor_of_a_normal_pool_without_a_runner_sleeps_and_is_not_started_by_one(namespace):
    make_pool(namespace)
    actor = new_actor(namespace)
    settle()
    assert now_is(actor) == ("asleep", -1, "")
    connect(new_runner(namespace))
    settle()
    assert now_is(actor)[0] == "asleep"
    post(actor, life.Wake())
    settle()
    assert now_is(actor)[:2] == ("starting", 0)


def test_the_started_actor_runs_and_whoever_waits_is_told_after_the_commit(namespace):
    runner = new_runner(namespace)
    actor = new_actor(namespace)
    settle()
    with hearing("actor:*") as next_message:
        post(actor, says(runner, life.RunningReport(), 0))
        settle()
        channel, payload = next_message()
    assert now_is(actor)[0] == "running"
    assert channel == f"actor:{actor.pk}"
    assert json.loads(payload) == {"m": "ready", "runner": runner.pk, "generation": 0}
    assert log(runner) == [], "an event of the generation proves that its start arrived"


def test_commands_reach_the_runners_socket_with_their_place_in_the_log(namespace):
    runner = new_runner(namespace)
    with hearing("runner:*") as next_message:
        new_actor(namespace)
        settle()
        channel, payload = next_message()
    assert channel == f"runner:{runner.pk}"
    command = Command.objects.get()
    assert payload == b"C" + (1).to_bytes(8, "little") + bytes(command.frame)


def test_sleep_stop_and_wake_make_one_log(namespace):
    runner = new_runner(namespace)
    actor = new_actor(namespace)
    settle()
    with hearing("actor:*") as next_message:
        post(actor, says(runner, life.RunningReport(), 0), says(runner, life.SleepIntent(), 1))
        settle()
        assert log(runner) == [(2, "stop", actor.pk, 0, 1)]
        frame = bytes(Command.objects.get().frame)
        assert isinstance(codec.decode_to_client(frame, 7).commands[0].inner, CommandStopActor)
        post(actor, life.Wake(), says(runner, life.StoppedReport(ok=False), 2))
        settle()
        told = [json.loads(next_message()[1]) for _ in range(3)]
    assert [message["m"] for message in told] == ["ready", "stopping", "stopped"]
    assert now_is(actor) == ("starting", 1, runner.pk)
    assert log(runner) == [(3, "start", actor.pk, 1, 0)]
    runner.refresh_from_db()
    assert (runner.used_slots, runner.command_seq) == (1, 3)


def test_events_that_are_dealt_with_are_acknowledged_also_stale_ones(namespace):
    runner = new_runner(namespace)
    actor = new_actor(namespace)
    settle()
    with hearing(f"runner:{runner.pk}") as next_message:
        post(actor, says(runner, life.RunningReport(), 0), says(runner, life.SleepIntent(), 5, generation=7))
        mailbox.post("actors", "nobody", {**signals("actors", actor.pk)[0]})
        settle()
        acked: list[list[object]] = []
        while len(acked) < 3:
            _, payload = next_message()
            assert payload[:1] == b"A"
            acked += json.loads(payload[1:])
    assert sorted(map(tuple, acked)) == sorted(
        [(actor.pk, 0, 0, False), (actor.pk, 7, 5, True), ("nobody", 0, 0, True)]
    )


# Whose turn it is


def test_the_longest_waiting_gets_the_slot_whichever_shard_it_is_in(namespace):
    waiting = [pending(namespace, seconds_ago) for seconds_ago in (30, 10, 50, 20, 40)]
    connect(new_runner(namespace, slots=2))
    settle()
    assert [now_is(actor)[0] for actor in waiting] == [
        "pending", "pending", "starting", "pending", "starting",
    ]  # fmt: skip


def test_a_slot_that_is_given_back_goes_to_the_longest_waiting(namespace):
    runner = new_runner(namespace)
    first = hosted(namespace, runner)
    waiting = [pending(namespace, seconds_ago) for seconds_ago in (10, 30, 20)]
    post(first, says(runner, life.StoppedReport(ok=True)))
    settle()
    assert now_is(first)[0] == "destroyed"
    assert [now_is(actor)[0] for actor in waiting] == ["pending", "starting", "pending"]
    runner.refresh_from_db()
    assert runner.used_slots == 1


def test_who_comes_late_does_not_overtake(namespace):
    waiting = pending(namespace, 30)
    new_runner(namespace)  # it has a slot and has not offered it yet
    late = make_actor(namespace)
    turn({late.pk: [life.Wake()]})
    assert now_is(late)[0] == "pending"
    settle()
    assert now_is(waiting)[0] == "starting"
    assert now_is(late)[0] == "pending"


def test_nobody_waits_behind_one_whose_workflow_is_stuck(namespace):
    long_ago = timezone.now() - tasks.PATIENCE - SECOND
    stuck = pending(namespace, 300, state_due_at=long_ago)
    new_runner(namespace)
    other = make_actor(namespace)
    turn({other.pk: [life.Wake()]})
    assert now_is(other)[0] == "starting"
    assert now_is(stuck)[0] == "pending"


def test_a_call_that_comes_to_one_already_served_is_passed_on(namespace):
    runner = new_runner(namespace, slots=2)
    served = hosted(namespace, runner)
    waiting = pending(namespace, 30)
    post(served, life.SlotFree())
    settle()
    assert now_is(waiting)[0] == "starting"


def test_an_actor_destroyed_in_this_very_turn_is_left_no_slot(namespace):
    runner = new_runner(namespace)
    old = hosted(namespace, runner)
    doomed, waiting = pending(namespace, 60), pending(namespace, 30)
    turn({doomed.pk: [life.Destroy()], old.pk: [says(runner, life.StoppedReport(ok=True))]})
    settle()
    assert (now_is(doomed)[0], now_is(waiting)[0]) == ("destroyed", "starting")


def test_one_refused_earlier_in_a_turn_gets_what_is_freed_later_in_it(namespace):
    runner = new_runner(namespace, slots=1)
    old = hosted(namespace, runner, status="stopping", stop_reason="sleep")
    asking = make_actor(namespace)
    # The sleeper's first signal asks for a slot, so that its runner's report is heard in the second round.
    other_pool = make_actor(namespace, pool_name="elsewhere")
    turn(
        {
            asking.pk: [life.Wake()],
            other_pool.pk: [life.Wake()],
            old.pk: [life.Wake(), says(runner, life.StoppedReport(ok=False))],
        }
    )
    settle()
    assert Counter([now_is(asking)[0], now_is(old)[0]]) == {"starting": 1, "pending": 1}
    runner.refresh_from_db()
    assert runner.used_slots == 1


# Which runners may serve (PROTOCOL §4.8, I13)


@pytest.mark.parametrize(
    "columns",
    [
        {"state": "draining", "holds_key": False},
        {"state": "evicting", "holds_key": False},
        {"state": "stopped", "holds_key": False, "due_at": None},
        {"connected": False},
        {"last_ping_at": None},
        {"slots": 0},
        {"name": "another pool"},
        {"used_slots": 1},
    ],
    ids=str,
)
def test_nothing_is_allocated_to_a_runner_that_may_not_serve(namespace, columns):
    if "last_ping_at" in columns:  # named without its time, so that every process calls it the same
        columns = {"last_ping_at": timezone.now() - 11 * SECOND}
    new_runner(namespace, **columns)
    actor = make_actor(namespace)
    turn({actor.pk: [life.Wake()]})
    assert now_is(actor)[0] == "pending"


def test_another_namespaces_runner_does_not_serve(namespace):
    from orchestrator.models import Namespace

    new_runner(Namespace.objects.create(name="other", display_name="Other"))
    actor = make_actor(namespace)
    turn({actor.pk: [life.Wake()]})
    assert now_is(actor)[0] == "pending"


def test_only_the_newest_version_serves_even_when_it_is_full(namespace):
    old = new_runner(namespace, "old", slots=9, runner_version=1)
    new = new_runner(namespace, "new", slots=1, runner_version=2)
    first, second = make_actor(namespace), make_actor(namespace)
    turn({first.pk: [life.Wake()]})
    turn({second.pk: [life.Wake()]})
    assert (now_is(first)[2], now_is(second)[0]) == (new.pk, "pending")
    Runner.objects.filter(pk=new.pk).update(last_ping_at=timezone.now() - 11 * SECOND)
    turn({second.pk: [life.Tick()]}, timezone.now() + 3 * SECOND)
    assert now_is(second)[2] == old.pk


# Slots are never oversold (I9)


def test_two_workers_at_once_never_oversell_a_slot(namespace):
    for round_ in range(4):
        pool = f"pool-{round_}"
        runners = [new_runner(namespace, f"{pool}-{n}", slots=3, name=pool) for n in range(3)]
        actors = [make_actor(namespace, pool_name=pool) for _ in range(24)]
        for actor in actors:
            post(actor, life.Wake())
        shards = sorted({mailbox.shard_of(actor.pk) for actor in actors})
        halves = shards[::2], shards[1::2]

        at_once(*(lambda half=half: [tasks.advance_shard(shard) for shard in half] for half in halves))
        settle()

        holders = Counter(
            Actor.objects.filter(pool_name=pool, status="starting").values_list("runner_id", flat=True)
        )
        assert holders == {runner.pk: 3 for runner in runners}
        for runner in runners:
            runner.refresh_from_db()
            assert runner.used_slots == 3
            assert [seq for seq, *_ in log(runner)] == [1, 2, 3]
        assert Actor.objects.filter(pool_name=pool, status="pending").count() == 24 - 9


def test_slots_given_back_and_taken_by_two_workers_at_once_stay_in_step(namespace):
    runner = new_runner(namespace, slots=4)
    actors = [hosted(namespace, runner) for _ in range(4)] + [pending(namespace, n + 1) for n in range(8)]
    for actor in actors[:4]:
        post(actor, says(runner, life.StoppedReport(ok=True)))
    for actor in actors[4:]:
        post(actor, life.Tick())
    shards = sorted({mailbox.shard_of(actor.pk) for actor in actors})

    at_once(*(lambda part=part: [tasks.advance_shard(shard) for shard in part] for part in (shards, shards[::-1])))
    settle()

    runner.refresh_from_db()
    assert runner.used_slots == 4 == Actor.objects.filter(runner_id=runner.pk).count()
    assert {now_is(actor)[0] for actor in actors[:4]} == {"destroyed"}
    assert [now_is(actor)[0] for actor in actors[8:]] == ["starting"] * 4, "the four that waited longest"


def test_the_same_batch_handled_by_two_workers_acts_once(namespace):
    """Its lease lapsed, so somebody else has handled it as well."""
    runner = new_runner(namespace, slots=9)
    actor = make_actor(namespace)
    batch = {actor.pk: [life.Wake()]}
    at_once(lambda: turn(batch), lambda: turn(batch), lambda: turn(batch))
    assert now_is(actor)[:2] == ("starting", 0)
    runner.refresh_from_db()
    assert (runner.used_slots, len(log(runner))) == (1, 1)


# Destroying


def test_a_destroyed_actor_gives_its_slot_to_the_longest_waiting_and_its_stop_stays(namespace):
    runner = new_runner(namespace)
    actor = new_actor(namespace)
    settle()
    waiting = pending(namespace, 30)
    with hearing("actor:*") as next_message:
        post(actor, life.Destroy())
        settle()
        assert json.loads(next_message()[1]) == {"m": "destroyed"}
    assert now_is(actor) == ("destroyed", 0, "")
    assert actor.destroyed_at is not None
    assert now_is(waiting)[2] == runner.pk
    assert log(runner) == [
        (1, "start", actor.pk, 0, 0),
        (2, "stop", actor.pk, 0, 1),
        (3, "start", waiting.pk, 1, 0),
    ]
    post(actor, says(runner, life.StoppedReport(ok=True), 1))
    settle()
    assert log(runner) == [(3, "start", waiting.pk, 1, 0)]


def test_the_key_of_a_destroyed_actor_is_free(namespace):
    actor = make_actor(namespace, key="k")
    turn({actor.pk: [life.Destroy()]})
    make_actor(namespace, key="k")


# What happens to runners


def test_the_actors_of_a_draining_runner_are_told_to_stop(namespace):
    runner = new_runner(namespace, slots=2)
    actors = [hosted(namespace, runner), hosted(namespace, runner, status="starting", connectable_at=None)]
    mailbox.post("runners", runner.pk, {"t": "drain", "grace_ms": 10_000, "by": "runner"})
    settle()
    assert [now_is(actor)[0] for actor in actors] == ["stopping", "stopping"]
    assert sorted(kind for _, kind, *_ in log(runner)) == ["stop", "stop"]
    for actor in actors:
        post(actor, says(runner, life.StoppedReport(ok=True)))
    settle()
    assert [now_is(actor)[0] for actor in actors] == ["asleep", "asleep"]
    runner.refresh_from_db()
    assert (runner.state, runner.used_slots) == ("evicting", 0), "evicted as soon as it is idle"


def test_the_actors_of_a_silent_runner_are_lost_and_its_log_with_it(namespace):
    runner = new_runner(namespace, connected=False, last_ping_at=timezone.now() - 16 * SECOND)
    actor = hosted(namespace, runner)
    Command.objects.create(
        runner=runner,
        seq=1,
        actor_id=actor.pk,
        generation=0,
        index=0,
        kind="start",
        frame=b"",
        created_at=timezone.now(),
    )
    mailbox.post("runners", runner.pk, {"t": "tick"})
    settle()
    assert now_is(actor) == ("asleep", 0, "")
    assert actor.failure == {"kind": "runner_connection_lost", "runner_id": runner.pk, "message": None}
    runner.refresh_from_db()
    assert (runner.state, runner.used_slots, runner.stop_reason) == ("stopped", 0, "connection_lost")
    assert log(runner) == []
    assert "Actor workflow > Runner: StopActor" not in arrows(actor)


def test_an_actor_its_reconnected_runner_does_not_know_is_lost_and_stopped_should_it_live(namespace):
    runner = new_runner(namespace, slots=3)
    actor = hosted(namespace, runner)
    unheard = hosted(namespace, runner, status="starting", connectable_at=None)
    Actor.objects.filter(pk=unheard.pk).update(event_index=-1)
    assert hosting.spoken_lives(runner.pk) == {(actor.pk, 0)}
    post(actor, life.Missing(runner.pk, 0))
    settle()
    assert now_is(actor) == ("asleep", 0, "")
    assert [kind for _, kind, *_ in log(runner)] == ["stop"]


def test_a_runner_that_ended_unnoticed_is_found_by_the_audit_and_a_missed_alarm_counts(namespace):
    now = timezone.now()
    runner = new_runner(
        namespace, state="stopped", holds_key=False, connected=False, last_ping_at=now - 90 * SECOND, stop_at=now
    )
    actor = hosted(namespace, runner, state_due_at=now, due_at=now, alarm_spent_at=now - 60 * SECOND)
    turn({actor.pk: [life.Tick()]})
    assert now_is(actor)[0] == "pending"
    assert actor.cause == "alarm"


# Time


def test_a_deadline_that_is_somebodys_wish_gets_a_prompt_timer(namespace):
    asleep = make_actor(namespace, status="running", runner_id="r", generation=0, due_at=timezone.now() + MINUTE,
                        state_due_at=timezone.now() + MINUTE, connectable_at=timezone.now())  # fmt: skip
    new_runner(namespace, pk="r", slots=1, used_slots=1)
    alarm_at = (timezone.now() + 30 * SECOND).replace(microsecond=0)
    runner = Runner.objects.get(pk="r")
    turn(
        {
            asleep.pk: [
                says(runner, life.AlarmReport(alarm_at), 0),
                says(runner, life.SleepIntent(), 1),
                says(runner, life.StoppedReport(ok=True), 2),
            ]
        }
    )
    assert now_is(asleep)[0] == "asleep"
    assert get_redis().zscore(timers.KEY, f"actors {asleep.pk}") == alarm_at.timestamp()


def test_an_actor_that_gives_up_waiting_sleeps_and_its_pool_is_told(namespace):
    pool = make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=900 * SECOND)
    now = timezone.now()
    actor = pending(namespace, 61, cause="wake", gives_up_at=now - SECOND, state_due_at=now - SECOND)
    turn({actor.pk: [life.Tick()]})
    assert now_is(actor)[0] == "asleep"
    assert signals("pools", pool.pk) == [{"t": "bump"}]


# What must not happen


def test_a_poisonous_actor_does_not_stop_its_shard(namespace):
    now = timezone.now()
    broken = make_actor(namespace, status="running", runner_id="r", generation=0, due_at=now - SECOND)
    good = next(
        actor
        for actor in (make_actor(namespace) for _ in range(2_000))
        if mailbox.shard_of(actor.pk) == mailbox.shard_of(broken.pk)
    )
    post(broken, life.Tick())
    post(good, life.Wake())
    settle()
    assert now_is(good)[0] == "pending"
    assert now_is(broken)[0] == "running"
    assert broken.failure["kind"] == "internal_error"
    assert broken.due_at > now + 50 * SECOND, "the sweep does not come back to it every second"
    [aside] = SetAsideSignal.objects.all()
    assert (aside.workflow, aside.key, aside.signal) == ("actors", broken.pk, {"t": "tick"})
    assert arrows(broken)[0].startswith("Actor workflow > Actor workflow: failed: AssertionError")


def test_signals_to_an_unknown_actor_are_no_trouble(namespace):
    mailbox.post("actors", "nobody", {"t": "wake"}, {"t": "tick"})
    settle()
    assert not SetAsideSignal.objects.exists()


def test_many_calls_to_one_waiting_actor_cost_little_more_than_one(namespace):
    make_pool(namespace)
    actor = make_actor(namespace)
    with CaptureQueriesContext(connection) as queries:
        turn({actor.pk: [life.Wake(again=n > 0) for n in range(64)]})
    assert now_is(actor)[0] == "pending"
    assert len(queries) < 15


def test_many_actors_in_one_turn_cost_little_more_than_one(namespace):
    make_pool(namespace)
    new_runner(namespace, slots=64)

    def cost(count: int) -> int:
        actors = [make_actor(namespace) for _ in range(count)]
        with CaptureQueriesContext(connection) as queries:
            turn({actor.pk: [life.Wake()] for actor in actors})
        assert {now_is(actor)[0] for actor in actors} == {"starting"}
        return len(queries)

    one = cost(1)
    assert cost(40) <= one + 40, "one UPDATE for each row, and nothing else that grows"


def test_replaying_the_timeline_gives_the_row(namespace):
    """I16. Deadlines aside."""
    runner = new_runner(namespace, slots=2)
    actor = new_actor(namespace, crash_policy="restart")
    settle()
    for index, report in enumerate(
        [life.RunningReport(), life.AlarmReport(timezone.now() + MINUTE), life.SleepIntent()]
    ):
        post(actor, says(runner, report, index))
    post(actor, life.Wake(), says(runner, life.StoppedReport(ok=False), 3))
    settle()
    post(actor, says(runner, life.RunningReport(), 0, 1), says(runner, life.StoppedReport(False, "boom"), 1, 1))
    settle()

    state: life.State = life.Created(life.Life(life.CrashPolicy.RESTART), actor.created_at)
    for entry in TimelineEntry.objects.filter(actor_id=actor.pk):
        if "signal" in entry.data:
            state, _ = decide(state, decode_signal(entry.data["signal"]), entry.at, tasks.limits())
            assert type(state).__name__.lower() == entry.data["state"]

    actor.refresh_from_db()
    row = actor.state
    assert isinstance(row, life.Starting)
    assert isinstance(state, life.Starting)
    assert (state.runner_id, state.event_index) == (row.runner_id, row.event_index)
    assert (state.life.generation, state.life.failure, state.life.retries, state.life.alarm_at) == (
        row.life.generation, row.life.failure, row.life.retries, row.life.alarm_at,
    )  # fmt: skip


def test_a_pool_of_many_waiting_actors_is_served_by_one_runner_after_the_other(namespace):
    """Whoever is called and is not served again lets the next one have the slot; nobody is forgotten."""
    runner = new_runner(namespace)
    actors = [pending(namespace, 100 - n) for n in range(6)]
    connect(runner)
    settle()
    for position, actor in enumerate(actors):
        assert now_is(actor)[0] == "starting", position
        post(actor, says(runner, life.StoppedReport(ok=True), 0, generation=1))
        settle()
    assert {now_is(actor)[0] for actor in actors} == {"destroyed"}
    assert RunnerConfig.objects.count() == 0
    runner.refresh_from_db()
    assert runner.used_slots == 0
