"""The admin's pages of actors: what they are, why, and what happened to them."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from actors.explain import explain, in_words
from actors.models import Actor
from actors.timeline import actor_timeline
from orchestrator.admin import NOTHING, ReadOnlyAdmin, arrows, linked, list_link, moment, preformatted
from orchestrator.models import TimelineEntry
from orchestrator.pictures import mermaid

SHOWN = 200
"""The actor's newest arrows on its page; `manage.py timeline` shows all."""


@admin.register(Actor)
class ActorAdmin(ReadOnlyAdmin):
    """Actors, the newest first."""

    list_display = (
        "id",
        "name",
        "key",
        "namespace",
        "pool_name",
        "status",
        "generation",
        "runner",
        "trouble",
        "created",
    )
    list_filter = ("status", "crash_policy", "namespace")
    list_select_related = ("namespace",)
    search_fields = ("=id", "=runner_id", "name__startswith", "key__startswith")
    search_help_text = "an actor's or its runner's whole id, or the beginning of a name or key"
    ordering = ("-id",)  # ids grow with time
    runner = linked("runner_id", "runner", "runners_runner")
    created = moment("created_at", "created")

    fieldsets = (
        (None, {"fields": ("id", "namespace", "name", "key", "pool", "crash_policy", "created_at")}),
        (
            "State",
            {
                "fields": (
                    ("status", "generation", "runner"),
                    ("started_at", "connectable_at", "slept_at"),
                    ("pending_at", "gives_up_at", "cause"),
                    ("stop_reason", "wake_after", "event_index"),
                    ("failure", "retries", "retried_at"),
                    ("alarm_at", "alarm_spent_at", "alarm_overdue"),
                    ("due_at", "state_due_at", "destroyed_at", "version"),
                )
            },
        ),
        ("Why", {"fields": ("explanation",)}),
        ("Timeline", {"fields": ("timeline",)}),
        ("Sequence diagram", {"fields": ("picture",), "classes": ("collapse",)}),
    )
    readonly_fields = ("pool", "runner", "explanation", "timeline", "picture")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Actor]:
        """Leave out the input, which may be a megabyte."""
        return super().get_queryset(request).select_related("namespace").defer("input")

    @admin.display(description="trouble")
    def trouble(self, row: Actor) -> str:
        """Show the kind of failure."""
        return row.failure["kind"] if row.failure else NOTHING

    @admin.display(description="pool")
    def pool(self, row: Actor) -> SafeString:
        """Lead to the pool's configuration."""
        lookups = {"namespace__id__exact": row.namespace_id, "name__exact": row.pool_name}
        return list_link("runners_runnerconfig", row.pool_name, **lookups)

    @admin.display(description="explanation")
    def explanation(self, row: Actor) -> SafeString:
        """Show the step it is at, since when, what was tried, and what comes next."""
        told = explain(row)
        words = "\n".join(in_words(told))
        return preformatted(f"{words}\n\n{json.dumps(told, indent=2, ensure_ascii=False)}")

    @admin.display(description="arrows")
    def timeline(self, row: Actor) -> SafeString | str:
        """Show what happened to it."""
        return arrows(_timeline(row))

    @admin.display(description="Mermaid source")
    def picture(self, row: Actor) -> SafeString:
        """Show the same as the source of a sequence diagram."""
        return preformatted(mermaid(_timeline(row)))


def _timeline(row: Any) -> list[TimelineEntry]:
    """Read the timeline once for one page, which shows it twice."""
    if not hasattr(row, "_timeline"):
        row._timeline = actor_timeline(row.pk, last=SHOWN)
    found: list[TimelineEntry] = row._timeline
    return found
