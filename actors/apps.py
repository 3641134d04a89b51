"""The Django app of the actors."""

from django.apps import AppConfig

from orchestrator.workflow import sweep


class ActorsConfig(AppConfig):
    """Has the actors looked after by the sweep, and tells the pools how much they need."""

    name = "actors"

    def ready(self) -> None:
        """Register with the sweep and the pools; models can be imported only now."""
        from actors import hosting, queue, turn
        from runners import pools

        pools.register_demand(queue.count_demand)
        sweep.register(
            sweep.Swept(turn.ACTORS, queue.overdue), sweep.Swept(hosting.HOSTING, lambda now, limit: [])
        )
