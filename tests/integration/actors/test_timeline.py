"""An actor's timeline on real rows: the ideal flow as the engine itself records it, and how it is shown."""

import json
import re
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from actors import life
from actors.models import Actor
from actors.timeline import actor_timeline
from orchestrator.arrows import Arrow, Participant
from orchestrator.models import TimelineEntry
from orchestrator.pictures import mermaid, table
from orchestrator.timeline import record
from orchestrator.workflow import mailbox
from runners import claims
from runners.models import Runner, ServerlessConnection
from runners.protocol.messages import ToServerInit
from runners.services import register_runner
from tests.support.management import make_actor, make_pool
from tests.support.turns import connect, post, settle

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
TO_RUNNER = (Participant.RUNNER_WS,)


@pytest.fixture
def pool(namespace):
    return make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=900 * SECOND)


def start_a_runner(pool, key: str) -> Runner:
    """Do what connector, application and socket do for a wanted `/start`."""
    [request] = claims.claim(connector_id="connector", limit=1)
    init = ToServerInit(name=pool.name, version=1, total_slots=1, prepopulate_actor_names=None, metadata=None)
    registration = register_runner(
        namespace_name=pool.namespace.name, key=key, init=init, protocol_version=7, socket_id="socket"
    )
    runner = Runner.objects.get(pk=registration.runner_id)
    connect(runner)
    settle()
    mailbox.post("pools", pool.pk, {"t": "ready", "request_id": request.id, "runner_id": runner.pk})
    settle()
    return runner


def end_a_runner(pool, runner) -> None:
    """Do what is done when an idle runner has been evicted: its socket closes, and its stream ends."""
    Runner.objects.filter(pk=runner.pk).update(socket_id="")
    mailbox.post("runners", runner.pk, {"t": "disconnected", "socket_id": "socket"})
    settle()
    request = ServerlessConnection.objects.get(runner_id=runner.pk)
    mailbox.post("pools", pool.pk, {"t": "ended", "request_id": request.pk})
    settle()


def says(runner, report, index, generation) -> life.FromRunner:
    return life.FromRunner(runner.pk, generation, index, report)


def answer_a_request(actor, runner, generation) -> None:
    """Record what a gateway does when it has carried a request to the actor."""
    asked = Arrow(Participant.GATEWAY, Participant.RUNNER, "request start", TO_RUNNER)
    answered = Arrow(Participant.RUNNER, Participant.USER, "response start", (*TO_RUNNER, Participant.GATEWAY))
    for arrow in (asked, answered):
        kept = {"actor_id": actor.pk, "runner_id": runner.pk, "generation": generation}
        record([Arrow(arrow.source, arrow.target, arrow.label, arrow.via, **kept)], timezone.now())


def told(entries) -> list[str]:
    return [" > ".join([e.source, *e.via, e.target]) + f": {e.label}" for e in entries]


IDEAL_FLOW = [
    "User > Gateway: GET /",
    "Gateway > Actor workflow: wake",
    "Actor workflow > Actor workflow: allocate: no runner free, pending",
    "Actor workflow > Serverless: bump",
    "Serverless > Serverless endpoint: GET /start",
    "Runner > Runner WS: connect, init",
    "Runner WS > Runner workflow: registered",
    "Runner workflow > Actor workflow: allocate pending",
    "Actor workflow > Runner workflow > Runner WS > Runner: StartActor",
    "Runner > Runner WS > Runner workflow > Actor workflow: running",
    "Actor workflow > Gateway: ready",
    "Gateway > Runner WS > Runner: request start",
    "Runner > Runner WS > Gateway > User: response start",
]


def take_the_ideal_flow(actor, pool, *, key="key", generation=0) -> Runner:
    post(actor, life.Wake("GET /"))
    settle()
    runner = start_a_runner(pool, key)
    post(actor, says(runner, life.RunningReport(), 0, generation))
    settle()
    answer_a_request(actor, runner, generation)
    return runner


def test_the_ideal_flow_is_thirteen_arrows_in_order(namespace, pool):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    assert told(actor_timeline(actor.pk)) == IDEAL_FLOW


def test_sleep_and_the_idle_runners_end_follow_and_a_second_runner_after_them(namespace, pool):
    actor = make_actor(namespace)
    first = take_the_ideal_flow(actor, pool, key="first")
    post(actor, says(first, life.SleepIntent(), 1, 0), says(first, life.StoppedReport(ok=False), 2, 0))
    settle()
    end_a_runner(pool, first)
    second = take_the_ideal_flow(actor, pool, key="second", generation=1)
    assert first.pk != second.pk
    assert told(actor_timeline(actor.pk)) == [
        *IDEAL_FLOW,
        "Runner > Runner WS > Runner workflow > Actor workflow: intent: sleep",
        "Actor workflow > Runner workflow > Runner WS > Runner: StopActor",
        "Runner > Runner WS > Runner workflow > Actor workflow: stopped",
        "Actor workflow > Actor workflow: deallocate",
        "Actor workflow > Serverless: bump",
        "Actor workflow > Gateway: stopped",
        "Serverless > Runner workflow: stop",
        "Runner workflow > Runner WS: evict",
        "Runner workflow > Runner workflow: stopped",
        "Serverless endpoint > Serverless: end of the stream",
        *IDEAL_FLOW,
    ]


def test_what_a_runner_did_before_and_after_it_was_the_actors_is_not_shown(namespace, pool):
    """Another actor brought the runner; later it serves that one alone again, and goes."""
    other, actor = make_actor(namespace), make_actor(namespace)
    runner = take_the_ideal_flow(other, pool)
    Runner.objects.filter(pk=runner.pk).update(total_slots=2)
    post(actor, life.Wake("GET /"))
    settle()
    post(actor, says(runner, life.StoppedReport(ok=False), 0, 0))
    settle()
    Runner.objects.filter(pk=runner.pk).update(total_slots=1)
    post(actor, life.Wake("GET /again"))
    settle()
    mailbox.post("runners", runner.pk, {"t": "drain", "grace_ms": 1_000, "by": "runner"})
    settle()

    assert told(actor_timeline(actor.pk)) == [
        "User > Gateway: GET /",
        "Gateway > Actor workflow: wake",
        "Actor workflow > Actor workflow: allocate",
        "Actor workflow > Runner workflow > Runner WS > Runner: StartActor",
        "Runner > Runner WS > Runner workflow > Actor workflow: stopped",
        "Actor workflow > Actor workflow: deallocate",
        "Actor workflow > Serverless: bump",
        "Actor workflow > Gateway: stopped",
        "User > Gateway: GET /again",
        "Gateway > Actor workflow: wake",
        "Actor workflow > Actor workflow: allocate: no runner free, pending",
        "Actor workflow > Serverless: bump",
    ]
    shown = told(actor_timeline(other.pk))
    assert "Runner > Runner WS > Runner workflow: stop" in shown
    assert shown.count("Actor workflow > Runner workflow > Runner WS > Runner: StartActor") == 1


def test_one_that_waits_shows_what_is_tried_for_it(namespace, pool):
    actor = make_actor(namespace)
    post(actor, life.Wake("GET /"))
    settle()
    [request] = claims.claim(connector_id="connector", limit=1)
    error = {"serverless_http_error": {"status_code": 500, "body": "no"}}
    mailbox.post("pools", pool.pk, {"t": "ended", "request_id": request.id, "error": error, "status": 500})
    settle()
    assert told(actor_timeline(actor.pk))[4:] == [
        "Serverless > Serverless endpoint: GET /start",
        "Serverless endpoint > Serverless: failed: serverless_http_error",
    ]
    assert actor_timeline(actor.pk)[-1].data == {"error": error, "status": 500}


def test_only_the_newest_may_be_asked_for(namespace, pool):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    assert told(actor_timeline(actor.pk, last=2)) == IDEAL_FLOW[-2:]


def test_a_timeline_outlives_its_actor(namespace, pool):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    ServerlessConnection.objects.all().delete()
    Actor.objects.all().delete()
    shown = told(actor_timeline(actor.pk))
    assert shown == [arrow for arrow in IDEAL_FLOW if "GET /start" not in arrow]


# How it is shown


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("timeline", *arguments, stdout=out)
    return out.getvalue()


def test_the_table_has_time_pause_way_label_and_generation(namespace, pool):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    lines = command(actor.pk).splitlines()
    assert len(lines) == 13
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  +\+[\d,]+\.\d ms  "
    assert all(re.match(pattern, line) for line in lines), lines
    assert re.split(r"  +", lines[0])[2:] == ["User → Gateway", "GET /"]
    start = next(line for line in lines if "StartActor" in line)
    assert "Actor workflow → Runner workflow → Runner WS → Runner" in start
    assert start.endswith("  0")
    assert all(line == line.rstrip() for line in lines)


def test_the_table_tells_how_long_each_step_took():
    at = timezone.now()
    entries = [
        TimelineEntry(at=at, source="a", target="b", label="one"),
        TimelineEntry(at=at + timedelta(milliseconds=1234.5), source="b", target="a", label="two", generation=3),
    ]
    rows = table(entries)
    assert [(passed, generation) for _, passed, _, _, generation in rows] == [
        ("+0.0 ms", ""),
        ("+1,234.5 ms", "3"),
    ]
    assert table([]) == []


def test_json_has_every_field(namespace, pool):
    actor = make_actor(namespace)
    runner = take_the_ideal_flow(actor, pool)
    rows = json.loads(command(actor.pk, "--json"))
    assert [
        " > ".join([row["source"], *row["via"], row["target"]]) + f": {row['label']}" for row in rows
    ] == IDEAL_FLOW
    fields = {"at", "source", "target", "via", "label", "generation", "runner_id", "connection_id", "data"}
    assert all(set(row) == fields for row in rows)
    by_label = {row["label"]: row for row in rows}
    assert by_label["GET /start"]["connection_id"] == ServerlessConnection.objects.get().pk
    assert by_label["connect, init"]["runner_id"] == runner.pk
    assert by_label["StartActor"]["generation"] == 0
    assert by_label["wake"]["generation"] is None


def test_mermaid_draws_each_hop_and_notes_the_generation(namespace, pool):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    lines = command(actor.pk, "--mermaid").splitlines()
    assert lines[:9] == [
        "sequenceDiagram",
        "    participant PUser as User",
        "    participant PGateway as Gateway",
        "    participant PActorWorkflow as Actor workflow",
        "    participant PServerless as Serverless",
        "    participant PServerlessEndpoint as Serverless endpoint",
        "    participant PRunner as Runner",
        "    participant PRunnerWs as Runner WS",
        "    participant PRunnerWorkflow as Runner workflow",
    ]
    assert lines[9:] == [
        "    PUser->>PGateway: GET /",
        "    PGateway->>PActorWorkflow: wake",
        "    PActorWorkflow->>PActorWorkflow: allocate: no runner free, pending",
        "    PActorWorkflow->>PServerless: bump",
        "    PServerless->>PServerlessEndpoint: GET /start",
        "    PRunner->>PRunnerWs: connect, init",
        "    PRunnerWs->>PRunnerWorkflow: registered",
        "    Note over PActorWorkflow: generation 0",
        "    PRunnerWorkflow->>PActorWorkflow: allocate pending",
        "    PActorWorkflow->>PRunnerWorkflow: StartActor",
        "    PRunnerWorkflow->>PRunnerWs: StartActor",
        "    PRunnerWs->>PRunner: StartActor",
        "    PRunner->>PRunnerWs: running",
        "    PRunnerWs->>PRunnerWorkflow: running",
        "    PRunnerWorkflow->>PActorWorkflow: running",
        "    PActorWorkflow->>PGateway: ready",
        "    PGateway->>PRunnerWs: request start",
        "    PRunnerWs->>PRunner: request start",
        "    PRunner->>PRunnerWs: response start",
        "    PRunnerWs->>PGateway: response start",
        "    PGateway->>PUser: response start",
    ]


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("GET /a?b=c&d=1", "GET /a?b=c#38;d=1"),
        ("a;b", "a#59;b"),
        ("a#b", "a#35;b"),
        ("<script>", "#60;script#62;"),
        ("two\nlines\r", "two#10;lines#13;"),
        ("%%{init: {}}%%", "#37;#37;#123;init: #123;#125;#125;#37;#37;"),
        ("ünï 日本", "ünï 日本"),
        ("", " "),
    ],
)
def test_labels_cannot_break_the_picture(label, written):
    drawn = mermaid([TimelineEntry(at=timezone.now(), source="User", target="Gateway", label=label)])
    assert drawn.splitlines()[-1] == f"    PUser->>PGateway: {written}"


def test_each_change_of_the_generation_is_noted_once():
    entries = [
        TimelineEntry(at=timezone.now(), source="User", target="Gateway", label="x", generation=generation)
        for generation in (None, 0, 0, None, 0, 1, 1)
    ]
    notes = [line.strip() for line in mermaid(entries).splitlines() if "Note" in line]
    assert notes == ["Note over PActorWorkflow: generation 0", "Note over PActorWorkflow: generation 1"]


def test_an_unknown_actor_is_told_so(namespace):
    with pytest.raises(CommandError, match="there is no actor 'nobody'"):
        command("nobody")


@pytest.mark.parametrize(("arguments", "shown"), [((), "nothing is recorded yet\n"), (("--json",), "[]\n")])
def test_an_actor_of_whom_nothing_is_recorded(namespace, arguments, shown):
    assert command(make_actor(namespace).pk, *arguments) == shown


# Parts of it, over the API


def live_twice(actor, pool) -> None:
    first = take_the_ideal_flow(actor, pool, key="first")
    post(actor, says(first, life.SleepIntent(), 1, 0), says(first, life.StoppedReport(ok=False), 2, 0))
    settle()
    end_a_runner(pool, first)
    take_the_ideal_flow(actor, pool, key="second", generation=1)


def test_one_generation_is_shown_from_the_call_that_led_to_it(namespace, pool, api):
    actor = make_actor(namespace)
    live_twice(actor, pool)
    for generation in (0, 1):
        shown = actor_timeline(actor.pk, generation=generation)
        assert told(shown)[:13] == IDEAL_FLOW, generation
        wakes = api.ok("GET", f"/actors/{actor.pk}/timeline", query={"generation": generation})["wakes"]
        assert [wake["generation"] for wake in wakes] == [generation]
        assert len(wakes[0]["phases_ms"]) == 7
    assert actor_timeline(actor.pk, generation=2) == []


def test_a_span_of_time_is_shown_without_its_end(namespace, pool, api):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    every = actor_timeline(actor.pk)
    span = actor_timeline(actor.pk, since=every[2].at, until=every[5].at)
    assert told(span) == IDEAL_FLOW[2:5]
    answer = api.ok("GET", f"/actors/{actor.pk}/timeline", query={"until_ts": 1})
    assert (answer["arrows"], answer["wakes"]) == ([], [])


def test_the_api_tells_arrows_wakes_and_picture(namespace, pool, api):
    actor = make_actor(namespace)
    take_the_ideal_flow(actor, pool)
    answer = api.ok("GET", f"/actors/{actor.pk}/timeline")
    assert answer["arrows"] == json.loads(command(actor.pk, "--json"))
    assert answer["mermaid"] == command(actor.pk, "--mermaid")
    assert answer["wakes"][0]["total_ms"] >= 0
    assert api.send("GET", f"/actors/{actor.pk}/timeline", query={"since_ts": "x"}).status == 400
