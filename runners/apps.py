"""The Django app of the runners."""

from django.apps import AppConfig


class RunnersConfig(AppConfig):
    """Registers the runners with Django."""

    name = "runners"
