"""Metrics of actors that are read when somebody asks, by indexes that hold those awake only."""

from collections.abc import Iterator

from django.db.models import Count, Min
from prometheus_client.core import GaugeMetricFamily

from actors.models import Actor
from actors.queue import awake
from orchestrator import clock
from orchestrator.models import Namespace


def awake_actors() -> Iterator[GaugeMetricFamily]:
    """Give how many actors of each pool wait for a slot or hold one, and how long the oldest has waited."""
    labels = ["namespace", "pool"]
    count = GaugeMetricFamily(
        "torpor_actors", "Actors that wait for a slot or hold one", labels=[*labels, "status"]
    )
    age = GaugeMetricFamily("torpor_oldest_pending_seconds", "Wait of the oldest pending actor", labels=labels)
    now = clock.now()
    found = awake().values_list("namespace_id", "pool_name", "status")
    names = dict(Namespace.objects.values_list("pk", "name"))
    for namespace_id, pool, status, actors, since in found.annotate(Count("pk"), Min("pending_at")):
        namespace = names.get(namespace_id, namespace_id)
        count.add_metric([namespace, pool, status], actors)
        if status == Actor.Status.PENDING and since is not None:
            age.add_metric([namespace, pool], max((now - since).total_seconds(), 0))
    yield from (count, age)
