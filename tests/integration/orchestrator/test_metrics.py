"""What `/metrics` tells: what this process and others have counted, and what the rows and Redis say."""

import asyncio
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone
from prometheus_client import REGISTRY, Counter

from actors import life, tasks
from actors.codec import encode_signal
from orchestrator import metrics
from orchestrator.embedded import forget_counts
from orchestrator.workflow import echo, mailbox
from orchestrator.workflow.outbox import Outbox
from runners.models import RunnerConfig
from tests.support.management import Management, make_actor, make_pool, make_runner
from tests.support.turns import post, settle

pytestmark = pytest.mark.django_db(transaction=True)

REPOSITORY = Path(__file__).parents[3]


def values(api: Management) -> dict[str, float]:
    answer = api.send("GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, metrics.CONTENT_TYPE)
    lines = [line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def grown(api: Management, before: dict[str, float]) -> dict[str, float]:
    return {
        name: value - before.get(name, 0) for name, value in values(api).items() if value != before.get(name, 0)
    }


def test_a_wake_is_counted_and_measured(api, namespace):
    now = timezone.now()
    make_pool(namespace)
    runner = make_runner(namespace, "r", socket_id="s", last_ping_at=now, due_at=now)
    actor = make_actor(namespace)
    before = values(api)
    post(actor, life.Wake("GET /"))
    settle()
    post(actor, life.FromRunner(runner.pk, 0, 0, life.RunningReport()))
    settle()
    after = grown(api, before)
    assert after['torpor_wakes_total{cause="wake",outcome="allocated"}'] == 1
    assert after['torpor_phase_seconds_count{phase="allocate"}'] == 1
    assert after['torpor_phase_seconds_count{phase="start_actor"}'] == 1
    assert after['torpor_signals_total{workflow="actors"}'] == 2
    assert after['torpor_actors{namespace="default",pool="pool",status="running"}'] == 1


def test_a_turn_that_is_rolled_back_counts_for_nothing(api, namespace):
    make_pool(namespace)
    make_runner(namespace, "r", socket_id="s", last_ping_at=timezone.now())
    actor = make_actor(namespace)
    before = values(api)
    with transaction.atomic():
        tasks.apply({actor.pk: [encode_signal(life.Wake("GET /"))]}, Outbox(), timezone.now())
        transaction.set_rollback(True)
    assert 'torpor_wakes_total{cause="wake",outcome="allocated"}' not in grown(api, before)


def test_rows_and_redis_are_read_when_asked(api, namespace):
    pool = make_pool(namespace, kind="serverless", url="http://127.0.0.1:9", request_lifespan=timedelta(60))
    RunnerConfig.objects.filter(pk=pool.pk).update(desired=3, failures=2, paused=True)
    make_runner(namespace, "r", used_slots=1)
    now = timezone.now()
    waiting = {"status": "pending", "cause": "wake", "state_due_at": now, "due_at": now}
    make_actor(namespace, pending_at=now - timedelta(seconds=9), **waiting)
    actor = make_actor(namespace, pending_at=now, key="other", **waiting)
    mailbox.post("actors", actor.pk, {"t": "tick"})
    echo.echo("torpor")
    told = values(api)
    assert told['torpor_pool_desired_runners{namespace="default",pool="pool"}'] == 3
    assert told['torpor_pool_failures{namespace="default",pool="pool"}'] == 2
    assert told['torpor_pool_paused{namespace="default",pool="pool"}'] == 1
    assert told['torpor_runners{namespace="default",pool="pool",state="live"}'] == 1
    assert told['torpor_slots_used{namespace="default",pool="pool",state="live"}'] == 1
    assert told['torpor_actors{namespace="default",pool="pool",status="pending"}'] == 2
    assert 9 <= told['torpor_oldest_pending_seconds{namespace="default",pool="pool"}'] < 60
    shard = f'shard="{mailbox.shard_of(actor.pk)}",workflow="actors"'
    assert told[f"torpor_mailbox_signals{{{shard}}}"] == 1
    assert 0 <= told[f"torpor_mailbox_oldest_seconds{{{shard}}}"] < 60
    assert told['torpor_echo_age_seconds{queue="torpor"}'] < 5
    assert told['torpor_echo_age_seconds{queue="serverless"}'] == float("inf")


COUNT = """
import django; django.setup()
from orchestrator import metrics
from orchestrator.embedded import forget_counts
metrics.FRAMES_TO_RUNNERS.n += 5
metrics.RUNNER_SOCKETS.inc(7)
metrics.flush()
"""


def test_other_processes_counts_are_added_and_their_gauges_end_with_them(api):
    before = values(api)
    subprocess.run([sys.executable, "-c", COUNT], cwd=REPOSITORY, env=os.environ, check=True, timeout=60)
    after = grown(api, before)
    assert after['torpor_tunnel_frames_total{direction="to_runner"}'] == 5
    assert "torpor_runner_sockets" not in after


def test_tasks_of_an_event_loop_are_counted(api):
    async def count() -> None:
        others = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        metrics.count_tasks(asyncio.get_running_loop())
        await asyncio.wait(others)

    asyncio.run(count())
    assert values(api)[f'torpor_event_loop_tasks{{pid="{os.getpid()}"}}'] == 4


def test_the_token_is_asked_for_if_there_is_one(api, env):
    env(admin_token="hunter2hunter2")
    assert api.send("GET", "/metrics").refused == (403, "api.forbidden")
    answer = api.send("GET", "/metrics", headers={"authorization": "Bearer hunter2hunter2"})
    assert answer.status == 200


def test_the_dashboard_asks_for_metrics_that_there_are(api):
    told = api.send("GET", "/metrics").body.decode()
    known = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE))
    counted = {family.name for family in REGISTRY.collect()}
    known |= counted | {f"{name}_total" for name in counted}
    suffixes = ("_bucket", "_count", "_sum")
    dashboard = (REPOSITORY / "deploy" / "grafana-dashboard.json").read_text()
    asked = set(re.findall(r"torpor_\w+", dashboard))
    assert asked
    for name in asked:
        base = next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)
        assert base in known, name


def test_what_ended_processes_counted_can_be_forgotten(tmp_path):
    (tmp_path / "counter_2.db").write_bytes(b"")
    forget_counts(tmp_path)
    forget_counts(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_used_is_logged_and_nothing_else(settings, tmp_path, caplog):
    (tmp_path / "file").touch()
    settings.METRICS_DIR = tmp_path / "file" / "metrics"
    meter = metrics.Meter(Counter, "torpor_nothing", "Nothing", ["of"])
    metrics._meters.remove(meter)
    meter.labels("it").inc()
    meter.labels("it").inc()
    assert [record.action for record in caplog.records] == ["metrics_failed"]


def test_a_process_that_counts_nothing_leaves_nothing(tmp_path):
    state = tmp_path / "state"
    env = os.environ | {"TORPOR_STATE": str(state)}
    subprocess.run(
        [sys.executable, "manage.py", "serve", "--help"], cwd=REPOSITORY, env=env, check=True, timeout=60
    )
    assert not state.exists()
