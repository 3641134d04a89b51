"""The admin's pages of actors: what they are, why, and what happened to them."""

import json
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from actors.explain import explain, in_words
from actors.models import Actor
from actors.pages import picture, timeline_page, wakes_table
from actors.timeline import actor_timeline
from orchestrator.admin import NOTHING, ReadOnlyAdmin, arrows, linked, list_link, moment, preformatted
from orchestrator.models import TimelineEntry

SHOWN = 60
"""The actor's newest arrows on its page; the page of its timeline shows more."""


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
        ("What happened", {"fields": ("more", "wakes", "picture")}),
        ("Arrows", {"fields": ("timeline",), "classes": ("collapse",)}),
    )
    readonly_fields = ("pool", "runner", "explanation", "more", "wakes", "picture", "timeline")

    class Media:
        css = {"all": ("torpor/admin.css",)}

    def get_urls(self) -> list[Any]:
        """Add the page of the timeline."""
        view = self.admin_site.admin_view(partial(timeline_page, site=self.admin_site))
        return [path("<str:actor_id>/timeline/", view, name="actors_actor_timeline"), *super().get_urls()]

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

    @admin.display(description="timeline")
    def more(self, row: Actor) -> SafeString:
        """Lead to the page with all of it, and parts of it."""
        url = reverse("admin:actors_actor_timeline", args=[row.pk])
        return format_html('<a href="{}">choose a generation or a time, copy as Mermaid</a>', url)

    @admin.display(description="where the time went")
    def wakes(self, row: Actor) -> SafeString | str:
        """Show the phases of its newest wakes."""
        return wakes_table(_timeline(row))

    @admin.display(description="sequence diagram")
    def picture(self, row: Actor) -> SafeString:
        """Draw its newest arrows."""
        drawn = picture(_timeline(row), f"Sequence diagram of actor {row.pk}")
        return format_html('<div class="scrolls">{}</div>', drawn)


def _timeline(row: Any) -> list[TimelineEntry]:
    """Read the timeline once for one page, which shows it twice."""
    if not hasattr(row, "_timeline"):
        row._timeline = actor_timeline(row.pk, last=SHOWN)
    found: list[TimelineEntry] = row._timeline
    return found
