"""The Django app of the console."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """Pages, and the socket that keeps them up to date."""

    name = "console"
