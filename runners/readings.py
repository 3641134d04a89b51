"""Metrics of pools and runners that are read when somebody asks."""

from collections.abc import Iterator

from django.db.models import Count, Sum
from prometheus_client.core import GaugeMetricFamily

from runners.models import Runner, RunnerConfig


def pools() -> Iterator[GaugeMetricFamily]:
    """Give the runners each pool wants, its failures in a row, and whether it is paused."""
    labels = ["namespace", "pool"]
    desired = GaugeMetricFamily("torpor_pool_desired_runners", "Runners wanted", labels=labels)
    failures = GaugeMetricFamily("torpor_pool_failures", "Failed starts in a row", labels=labels)
    paused = GaugeMetricFamily("torpor_pool_paused", "1: paused by hand", labels=labels)
    rows = RunnerConfig.objects.filter(deleted_at=None, kind=RunnerConfig.Kind.SERVERLESS)
    for namespace, name, *values in rows.values_list("namespace__name", "name", "desired", "failures", "paused"):
        for family, value in zip((desired, failures, paused), values, strict=True):
            family.add_metric([namespace, name], float(value))
    yield from (desired, failures, paused)


def runners() -> Iterator[GaugeMetricFamily]:
    """Give the runners of each pool by state, and their slots."""
    labels = ["namespace", "pool", "state"]
    count = GaugeMetricFamily("torpor_runners", "Runners", labels=labels)
    used = GaugeMetricFamily("torpor_slots_used", "Slots in use", labels=labels)
    total = GaugeMetricFamily("torpor_slots", "Slots", labels=labels)
    rows = Runner.objects.filter(stop_at=None).order_by().values_list("namespace__name", "name", "state")
    for namespace, name, state, *values in rows.annotate(Count("pk"), Sum("used_slots"), Sum("total_slots")):
        for family, value in zip((count, used, total), values, strict=True):
            family.add_metric([namespace, name, state], float(value))
    yield from (count, used, total)
