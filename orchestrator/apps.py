"""The Django app of what every house uses."""

from django.apps import AppConfig


class OrchestratorConfig(AppConfig):
    """Tells the metrics what to read when they are asked for, and what is kept for how long."""

    name = "orchestrator"

    def ready(self) -> None:
        """Register with the metrics and the retention; models can be imported only now."""
        from orchestrator import metrics, readings, retention
        from orchestrator.models import AuditEntry, TimelineEntry

        metrics.register_source(readings.mailboxes, readings.echoes)
        retention.register(
            retention.Kept("timeline_days", TimelineEntry.objects.all, "at"),
            retention.Kept("audit_days", AuditEntry.objects.all, "at"),
        )
