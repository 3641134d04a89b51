"""The Django app of the runners."""

from django.apps import AppConfig

from orchestrator.workflow import sweep


class RunnersConfig(AppConfig):
    """Has runners, pools and their connectors looked after by the sweep."""

    name = "runners"

    def ready(self) -> None:
        """Register with the sweep; models can be imported only now."""
        from orchestrator import metrics
        from runners import pool_tasks, readings, tasks

        metrics.register_source(readings.pools, readings.runners)
        sweep.register(
            sweep.Swept(tasks.RUNNERS, tasks.overdue),
            sweep.Swept(pool_tasks.POOLS, pool_tasks.overdue),
            sweep.Watched(pool_tasks.CONNECTORS, pool_tasks.unclaimed),
        )
