"""The Django app of the gateway."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Has an actor's start list the WebSockets that hibernate with it."""

    name = "gateway"

    def ready(self) -> None:
        """Register with the actors; models can be imported only now."""
        from actors import hibernating
        from gateway import pair_rows

        hibernating.register_hibernating(pair_rows.take_hibernating)
