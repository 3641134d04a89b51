"""The Django app of the actors."""

from django.apps import AppConfig

from runners import pools


class ActorsConfig(AppConfig):
    """Tells the pools how much the actors need of them."""

    name = "actors"

    def ready(self) -> None:
        """Register the counter; models can be imported only now."""
        from actors.queue import count_demand

        pools.register_demand(count_demand)
