"""The Django app of the orchestrator."""

from django.apps import AppConfig


class OrchestratorConfig(AppConfig):
    """Holds namespaces and the timeline, and the commands that run the engine."""

    name = "orchestrator"
