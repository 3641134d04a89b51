"""The Django app of the actors."""

from django.apps import AppConfig


class ActorsConfig(AppConfig):
    """Registers the actors with Django."""

    name = "actors"
