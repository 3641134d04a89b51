"""The admin's pages of actors: what they are, why, and what happened to them."""

import json
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from actors import services
from actors.explain import explain, in_words
from actors.models import Actor
from actors.pages import picture, timeline_page, wakes_table
from actors.queue import awake
from actors.storage_browser import used_bytes
from actors.storage_pages import storage_page
from actors.timeline import actor_timeline
from orchestrator.admin import NOTHING, arrows, link, linked, list_link, moment, preformatted, rows, shortened
from orchestrator.ids import is_id
from orchestrator.models import TimelineEntry
from orchestrator.operate import OperatedAdmin, Operation
from runners import actor_tables
from runners.models import ActorName, Runner, RunnerConfig

ACTORS_SHOWN = 50
"""Actors on the page of their pool or runner."""
_HOSTED = (Actor.Status.STARTING, Actor.Status.RUNNING)
NAMES_SEARCHED = 20
"""Names of actors that a search by the beginning of a name finds."""
SHOWN = 60
"""The actor's newest arrows on its page; the page of its timeline shows more."""


class StatusFilter(admin.SimpleListFilter):
    """Actors of one status. It also says what that implies, by which an index finds those that are few."""

    title = "status"
    parameter_name = "status__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer every status."""
        return [(status.value, str(status.label)) for status in Actor.Status]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Actor]) -> QuerySet[Actor]:
        """Return the actors of the chosen status."""
        match self.value():
            case None:
                return queryset
            case Actor.Status.ASLEEP:
                return queryset.filter(status=Actor.Status.ASLEEP, destroyed_at=None)
            case Actor.Status.DESTROYED:
                return queryset.filter(status=Actor.Status.DESTROYED, destroyed_at__isnull=False)
            case status:
                return queryset.filter(status=status, due_at__isnull=False)


@admin.register(Actor)
class ActorAdmin(OperatedAdmin):
    """Actors, the newest first."""

    operations = (
        Operation(
            "wake",
            "Wake",
            "The actor is started unless it runs.",
            lambda row: services.wake_actor(actor_id=row.pk),
            lambda row: _gone(row) or ("it runs already" if row.status == Actor.Status.RUNNING else None),
        ),
        Operation(
            "sleep",
            "Put to sleep",
            "The actor is stopped and sleeps until somebody calls it or its alarm is due.",
            lambda row: services.sleep_actor(actor=row),
            lambda row: _gone(row) or (None if row.status in _HOSTED else f"it is {row.status}"),
        ),
        Operation(
            "reschedule",
            "Reschedule",
            "The actor is stopped and started afresh, on another runner if need be.",
            lambda row: services.reschedule_actor(actor=row),
            lambda row: _gone(row),
        ),
        Operation(
            "reset",
            "Reset backoff",
            "The actor's wait after its failures ends now, and they no longer count.",
            lambda row: services.reschedule_actor(actor=row),
            lambda row: None if row.status == Actor.Status.BACKOFF else "it waits for no backoff",
        ),
        Operation(
            "destroy",
            "Destroy",
            "The actor is ended for good, with all it has stored. This cannot be undone.",
            lambda row: services.destroy_actor(actor=row),
            lambda row: _gone(row),
        ),
    )

    list_display = (
        "actor",
        "name",
        "key",
        "namespace",
        "pool_name",
        "status",
        "lives",
        "runner",
        "trouble",
        "created",
    )
    list_filter = (StatusFilter, "namespace")
    list_select_related = ("namespace",)
    search_fields = ("=id",)  # see get_search_results
    search_help_text = "an actor's or its runner's whole id, the beginning of a name, or NAME/KEY"
    actor = shortened("id", "actor")
    runner = linked("runner_id", "runner", "runners_runner")
    created = moment("created_at", "created")

    fieldsets = (
        (
            None,
            {
                "fields": (
                    "buttons",
                    "id",
                    "namespace",
                    "name",
                    "key",
                    "pool",
                    "crash_policy",
                    "created_at",
                    "storage",
                )
            },
        ),
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
    readonly_fields = (
        "buttons",
        "pool",
        "storage",
        "runner",
        "explanation",
        "more",
        "wakes",
        "picture",
        "timeline",
    )

    class Media:
        css = {"all": ("torpor/admin.css",)}

    def get_urls(self) -> list[Any]:
        """Add the pages of the timeline and of the storage."""
        pages = {"timeline": timeline_page, "storage": storage_page}
        own = [
            path(
                f"<str:actor_id>/{name}/",
                self.admin_site.admin_view(partial(page, site=self.admin_site)),
                name=f"actors_actor_{name}",
            )
            for name, page in pages.items()
        ]
        return [*own, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Actor]:
        """Leave out the input, which may be a megabyte."""
        rows = super().get_queryset(request).select_related("namespace").defer("input")
        # SQLite finds those of a runner by their index if told that it is one.
        return rows.exclude(runner_id="") if "runner_id__exact" in request.GET else rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Actor], search_term: str
    ) -> tuple[QuerySet[Actor], bool]:
        """Search by what an index finds among millions: ids, names by their beginning, keys of one name."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if is_id(term):
            on_it = Actor.objects.filter(runner_id=term).exclude(runner_id="").values_list("pk", flat=True)
            return queryset.filter(pk__in=[term, *on_it[:ACTORS_SHOWN]]), False
        if keyed := _of_key(term):
            return queryset.filter(pk__in=keyed), False
        wanted = Q(pk="")
        for namespace_id, name in _names().filter(name__startswith=term)[:NAMES_SEARCHED]:
            wanted |= Q(namespace_id=namespace_id, name=name)
        return queryset.filter(wanted), False

    @admin.display(description="generation")
    def lives(self, row: Actor) -> str:
        """Show the generation; none before the first."""
        return NOTHING if row.generation < 0 else str(row.generation)

    @admin.display(description="trouble")
    def trouble(self, row: Actor) -> str:
        """Show the kind of failure."""
        return row.failure["kind"] if row.failure else NOTHING

    @admin.display(description="pool")
    def pool(self, row: Actor) -> SafeString:
        """Lead to the pool's configuration."""
        lookups = {"namespace__id__exact": row.namespace_id, "name__exact": row.pool_name}
        return list_link("runners_runnerconfig", row.pool_name, **lookups)

    @admin.display(description="storage")
    def storage(self, row: Actor) -> SafeString:
        """Lead to what it has stored."""
        used = filesizeformat(used_bytes(row.pk))
        return format_html(
            '{}, <a href="{}">browse</a>', used, reverse("admin:actors_actor_storage", args=[row.pk])
        )

    @admin.display(description="explanation")
    def explanation(self, row: Actor) -> SafeString:
        """Show the step it is at, since when, what was tried, and what comes next."""
        told = explain(row)
        words = "\n".join(in_words(told))
        whole = preformatted(json.dumps(told, indent=2, ensure_ascii=False))
        return format_html("{}<details><summary>as JSON</summary>{}</details>", preformatted(words), whole)

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


def _names() -> Any:
    return ActorName.objects.order_by("name").values_list("namespace_id", "name")


def _of_key(term: str) -> list[str]:
    """Return the actors of NAME/KEY, alive and destroyed; names and keys may have slashes themselves."""
    parts = term.split("/")
    splits = {"/".join(parts[:n]): "/".join(parts[n:]) for n in range(1, min(len(parts), NAMES_SEARCHED))}
    found: list[str] = []
    for namespace_id, name in _names().filter(name__in=splits)[:NAMES_SEARCHED] if splits else ():
        rows = Actor.objects.filter(namespace_id=namespace_id, name=name, key=splits[name])
        for half in (rows.filter(destroyed_at=None), rows.filter(destroyed_at__isnull=False)):  # an index each
            found += half.values_list("pk", flat=True)[:ACTORS_SHOWN]
    return found


def _gone(row: Actor) -> str | None:
    return "it is destroyed" if row.status == Actor.Status.DESTROYED else None


def _table(found: QuerySet[Actor]) -> SafeString | str:
    """Show some of these actors."""
    return rows(
        ["actor", "name", "key", "status", "generation", "runner"],
        (
            (
                link("actors_actor", actor.pk),
                actor.name,
                NOTHING if actor.key is None else actor.key,
                actor.status,
                actor.generation,
                link("runners_runner", actor.runner_id),
            )
            for actor in found.defer("input")[:ACTORS_SHOWN]
        ),
    )


def _of_pool(pool: RunnerConfig) -> SafeString | str:
    """Show actors that wait for a slot or hold one, in no order: they are found by an index that has none."""
    return _table(awake().filter(namespace_id=pool.namespace_id, pool_name=pool.name))


def _of_runner(runner: Runner) -> SafeString | str:
    return _table(Actor.objects.filter(runner_id=runner.pk).exclude(runner_id="").order_by())


actor_tables.register(_of_pool, _of_runner)


def _timeline(row: Any) -> list[TimelineEntry]:
    """Read the timeline once for one page, which shows it twice."""
    if not hasattr(row, "_timeline"):
        row._timeline = actor_timeline(row.pk, last=SHOWN)
    found: list[TimelineEntry] = row._timeline
    return found
