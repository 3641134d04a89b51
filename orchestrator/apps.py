"""The Django app of what every house uses."""

from django.apps import AppConfig


class OrchestratorConfig(AppConfig):
    """Tells the metrics what to read when they are asked for."""

    name = "orchestrator"

    def ready(self) -> None:
        """Register with the metrics."""
        from orchestrator import metrics, readings

        metrics.register_source(readings.mailboxes, readings.echoes)
