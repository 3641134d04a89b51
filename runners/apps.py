"""The Django app of the runners."""

from django.apps import AppConfig

from orchestrator.workflow import sweep


class RunnersConfig(AppConfig):
    """Has runners, pools and their connectors looked after by the sweep."""

    name = "runners"

    def ready(self) -> None:
        """Register with the sweep; models can be imported only now."""
        from orchestrator import metrics, retention
        from runners import pool_tasks, readings, tasks
        from runners.selectors import ended_requests, ended_runners

        metrics.register_source(readings.pools, readings.runners)
        retention.register(
            retention.Kept("start_requests_days", ended_requests, "ended_at"),
            retention.Kept("runners_days", ended_runners, "stop_at"),
        )
        sweep.register(
            sweep.Swept(tasks.RUNNERS, tasks.overdue),
            sweep.Swept(pool_tasks.POOLS, pool_tasks.overdue),
            sweep.Watched(pool_tasks.CONNECTORS, pool_tasks.unclaimed),
        )
