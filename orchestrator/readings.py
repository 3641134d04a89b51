"""Metrics that are read when somebody asks: mailboxes and echoes."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from prometheus_client.core import GaugeMetricFamily

from orchestrator.redis import get_redis
from orchestrator.workflow import echo, mailbox, sweep


def mailboxes() -> Iterator[GaugeMetricFamily]:
    """Give how many signals wait in each shard of each workflow, and how old the oldest is."""
    labels = ["workflow", "shard"]
    depth = GaugeMetricFamily("torpor_mailbox_signals", "Signals that wait in a shard's mailbox", labels=labels)
    age = GaugeMetricFamily("torpor_mailbox_oldest_seconds", "Age of the oldest of them", labels=labels)
    pipeline = get_redis().pipeline(transaction=False)
    pipeline.time()
    names = [(workflow, shard) for workflow in sweep.workflows() for shard in range(settings.ENV.shards)]
    for workflow, shard in names:
        pipeline.xlen(mailbox.stream_name(workflow, shard))
        pipeline.xrange(mailbox.stream_name(workflow, shard), count=1)
    (seconds, microseconds), *found = pipeline.execute()
    for (workflow, shard), length, oldest in zip(names, found[::2], found[1::2], strict=True):
        depth.add_metric([workflow, str(shard)], length)
        since: Any = float(oldest[0][0].split(b"-")[0]) / 1000 if oldest else None
        age.add_metric([workflow, str(shard)], max(seconds + microseconds / 1e6 - since, 0) if oldest else 0)
    yield from (depth, age)


def echoes() -> Iterator[GaugeMetricFamily]:
    """Give the age of each queue's last echo; half a minute or more is told as infinite."""
    family = GaugeMetricFamily("torpor_echo_age_seconds", "Age of the last echo through a queue", labels=["queue"])
    for queue in sweep.queues():
        age = echo.age_seconds(queue)
        family.add_metric([queue], float("inf") if age is None else age)
    yield family
