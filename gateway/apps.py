"""The Django app of the gateway."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Registers the gateway with Django."""

    name = "gateway"
