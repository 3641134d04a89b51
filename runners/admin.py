"""The admin's pages of pools, runners, `/start` requests, commands and actor names."""

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from orchestrator.admin import (
    NOTHING,
    ReadOnlyAdmin,
    arrows,
    link,
    linked,
    list_link,
    moment,
    preformatted,
    rows,
    shortened,
)
from orchestrator.models import TimelineEntry
from orchestrator.operate import OperatedAdmin
from runners import actor_tables
from runners.admin_operations import POOL_OPERATIONS, RUNNER_OPERATIONS
from runners.configs import PoolSettings, check_settings, upsert_config
from runners.errors import RunnerConfigInvalid
from runners.models import ActorName, Command, Runner, RunnerConfig, ServerlessConnection

SHOWN = 50
"""The newest rows shown on the page of what they belong to."""


if TYPE_CHECKING:
    AnyPoolForm = forms.ModelForm[RunnerConfig]
else:
    AnyPoolForm = forms.ModelForm


class PoolForm(AnyPoolForm):
    """The settings of a pool that may be changed here, checked as the API checks them."""

    def clean(self) -> dict[str, Any]:
        """Refuse what the API would refuse."""
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                check_settings(self.instance.name, pool_settings(self.instance, cleaned))
            except RunnerConfigInvalid as error:
                raise forms.ValidationError(error.metadata.get("reason", error.message)) from None
        return cleaned


def pool_settings(row: RunnerConfig, changes: dict[str, Any]) -> PoolSettings:
    """Return a pool's settings with some of them changed."""
    names = PoolSettings.__dataclass_fields__
    return PoolSettings(**{name: changes.get(name, getattr(row, name)) for name in names})


@admin.register(RunnerConfig)
class RunnerConfigAdmin(OperatedAdmin):
    """Pools. How many runners one has, and its endpoint, may be changed; its workflow does the rest."""

    operations = POOL_OPERATIONS
    form = PoolForm
    list_display = (
        "name",
        "namespace",
        "kind",
        "url",
        "desired",
        "paused",
        "trouble",
        "retry",
        "updated",
        "deleted",
    )
    list_filter = ("kind", "paused", "namespace", ("deleted_at", admin.EmptyFieldListFilter))
    list_select_related = ("namespace",)
    search_fields = ("=id", "name__startswith", "url__startswith")
    search_help_text = "a pool's whole id, or the beginning of a name or URL"
    ordering = ("-id",)
    retry = moment("retry_at", "no start before")
    updated = moment("updated_at", "changed")
    deleted = moment("deleted_at", "deleted")

    _SETTINGS = (
        "url",
        "slots_per_runner",
        "min_runners",
        "max_runners",
        "runners_margin",
        "request_lifespan",
        "drain_grace_period",
        "drain_on_version_upgrade",
        "metadata_poll_interval",
    )
    fieldsets = (
        (
            None,
            {"fields": ("buttons", "id", "namespace", "name", "kind", "created_at", "updated_at", "deleted_at")},
        ),
        ("Settings", {"fields": (*_SETTINGS, "header_names", "options")}),
        (
            "State",
            {
                "fields": (
                    ("desired", "paused", "successes", "failures"),
                    ("error", "error_at"),
                    ("failed_at", "retry_at", "due_at"),
                    ("endpoint_epoch", "version"),
                    "metadata",
                )
            },
        ),
        ("What there is", {"fields": ("runners", "actors", "requests")}),
        ("Actors", {"fields": ("awake",)}),
    )
    readonly_fields = (
        *("id", "namespace", "name", "kind", "created_at", "updated_at", "deleted_at", "options", "metadata"),
        *("desired", "successes", "failures", "error", "error_at", "failed_at", "retry_at", "due_at"),
        *("endpoint_epoch", "version", "header_names", "runners", "actors", "requests"),
        *("buttons", "paused", "awake"),
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change pools may change one that is not deleted."""
        deleted = obj is not None and obj.deleted_at is not None
        return not deleted and admin.ModelAdmin.has_change_permission(self, request, obj)

    def save_model(self, request: HttpRequest, obj: RunnerConfig, form: Any, change: bool) -> None:
        """Change the pool as the API does, so that its workflow hears of it."""
        stored = RunnerConfig.objects.get(pk=obj.pk)
        wanted = pool_settings(stored, form.cleaned_data)
        upsert_config(namespace=obj.namespace, name=obj.name, wanted=wanted)

    @admin.display(description="trouble")
    def trouble(self, row: RunnerConfig) -> str:
        """Show the kind of error."""
        return _kind_of(row.error)

    @admin.display(description="headers")
    def header_names(self, row: RunnerConfig) -> str:
        """Show which headers are sent; what they say is nobody's business here."""
        return ", ".join(row.headers) or NOTHING

    @admin.display(description="runners")
    def runners(self, row: RunnerConfig) -> SafeString:
        """Show the newest of the pool's runners that are present, and lead to all."""
        present = Runner.objects.filter(namespace_id=row.namespace_id, name=row.name, stop_at=None)
        shown = rows(
            ["runner", "key", "state", "slots in use", "last heard of (UTC)"],
            (
                (
                    link("runners_runner", runner.pk),
                    runner.key,
                    f"{runner.state}{', cordoned' if runner.cordoned else ''}",
                    f"{runner.used_slots} of {runner.total_slots}",
                    f"{runner.last_ping_at:%Y-%m-%d %H:%M:%S}",
                )
                for runner in present.order_by("-created_at")[:SHOWN]
            ),
        )
        lookups = {"namespace__id__exact": row.namespace_id, "name__exact": row.name}
        return format_html("{} {}", shown, list_link("runners_runner", "all runners", **lookups))

    @admin.display(description="actors awake")
    def awake(self, row: RunnerConfig) -> SafeString | str:
        """Show the actors that wait for a slot or hold one."""
        return actor_tables.of_pool(row)

    @admin.display(description="actors")
    def actors(self, row: RunnerConfig) -> SafeString:
        """Lead to the pool's actors."""
        lookups = {"namespace__id__exact": row.namespace_id, "pool_name__exact": row.name}
        return list_link("actors_actor", "actors", **lookups)

    @admin.display(description=f"newest {SHOWN} /start requests")
    def requests(self, row: RunnerConfig) -> SafeString | str:
        """Show the newest `/start` requests."""
        return rows(
            ["/start request", "state", "runner", "made (UTC)", "status", "error"],
            (
                (
                    link("runners_serverlessconnection", request.pk),
                    request.state,
                    link("runners_runner", request.runner_id),
                    f"{request.created_at:%Y-%m-%d %H:%M:%S}",
                    request.status or NOTHING,
                    json.dumps(request.error) if request.error else NOTHING,
                )
                for request in row.connections.order_by("-created_at")[:SHOWN]
            ),
        )


@admin.register(Runner)
class RunnerAdmin(OperatedAdmin):
    """Runners, the newest first."""

    operations = RUNNER_OPERATIONS
    list_display = (
        "runner",
        "name",
        "short_key",
        "namespace",
        "condition",
        "slots",
        "runner_version",
        "connected",
        "pinged",
        "created",
    )
    list_filter = ("state", "cordoned", "namespace")
    list_select_related = ("namespace",)
    search_fields = ("=id", "name__startswith", "key__startswith")
    search_help_text = "a runner's whole id, or the beginning of a pool's name or a key"
    ordering = ("-id",)
    runner = shortened("id", "runner")
    short_key = shortened("key", "key")
    connected = moment("connected_at", "connected")
    pinged = moment("last_ping_at", "last heard of")
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
                    "runner_version",
                    "protocol_version",
                )
            },
        ),
        (
            "State",
            {
                "fields": (
                    ("state", "cordoned", "holds_key", "socket_id"),
                    ("total_slots", "used_slots", "command_seq"),
                    ("created_at", "connected_at", "last_ping_at", "last_rtt_ms"),
                    ("drain_at", "evict_at", "stop_at", "stop_reason"),
                    ("due_at", "version"),
                    "metadata",
                )
            },
        ),
        ("What there is", {"fields": ("actors", "start_requests", "commands", "timeline")}),
        ("Actors", {"fields": ("awake",)}),
    )
    readonly_fields = ("buttons", "pool", "actors", "start_requests", "commands", "timeline", "awake")

    @admin.display(description="actors awake")
    def awake(self, row: Runner) -> SafeString | str:
        """Show the actors that hold a slot of it."""
        return actor_tables.of_runner(row)

    @admin.display(description="state", ordering="state")
    def condition(self, row: Runner) -> str:
        """Show the state, and whether it is cordoned."""
        return f"{row.state}, cordoned" if row.cordoned else row.state

    @admin.display(description="slots in use", ordering="used_slots")
    def slots(self, row: Runner) -> str:
        """Show the slots in use, and all."""
        return f"{row.used_slots} of {row.total_slots}"

    @admin.display(description="pool")
    def pool(self, row: Runner) -> SafeString:
        """Lead to the pool's configuration."""
        lookups = {"namespace__id__exact": row.namespace_id, "name__exact": row.name}
        return list_link("runners_runnerconfig", row.name, **lookups)

    @admin.display(description="actors")
    def actors(self, row: Runner) -> SafeString:
        """Lead to the actors that hold a slot of it."""
        return list_link("actors_actor", "actors it hosts", runner_id__exact=row.pk)

    @admin.display(description="/start request")
    def start_requests(self, row: Runner) -> SafeString:
        """Lead to the request that brought it."""
        return list_link("runners_serverlessconnection", "the request that brought it", runner_id__exact=row.pk)

    @admin.display(description="commands")
    def commands(self, row: Runner) -> SafeString:
        """Lead to its command log."""
        return list_link("runners_command", "commands that have not taken effect", runner__id__exact=row.pk)

    @admin.display(description=f"newest {SHOWN} arrows")
    def timeline(self, row: Runner) -> SafeString | str:
        """Show its newest arrows, those of its actors among them."""
        newest = TimelineEntry.objects.filter(runner_id=row.pk).order_by("-at", "-id")[:SHOWN]
        return arrows(list(newest)[::-1])


@admin.register(ServerlessConnection)
class ServerlessConnectionAdmin(ReadOnlyAdmin):
    """`/start` requests, the newest first."""

    list_display = ("request", "pool", "state", "runner", "status", "trouble", "created", "ready", "ended")
    list_filter = ("state",)
    list_select_related = ("pool",)
    search_fields = ("=id", "=runner_id", "=pool__id")
    search_help_text = "the whole id of a request, a runner or a pool"
    ordering = ("-id",)
    request = shortened("id", "/start request")
    runner = linked("runner_id", "runner", "runners_runner")
    created = moment("created_at", "made")
    ready = moment("ready_at", "ready")
    ended = moment("ended_at", "ended")

    readonly_fields = ("timeline",)

    @admin.display(description="trouble")
    def trouble(self, row: ServerlessConnection) -> str:
        """Show the kind of error."""
        return _kind_of(row.error)

    @admin.display(description="arrows")
    def timeline(self, row: ServerlessConnection) -> SafeString | str:
        """Show what happened to it."""
        return arrows(list(TimelineEntry.objects.filter(connection_id=row.pk)[:SHOWN]))


@admin.register(Command)
class CommandAdmin(ReadOnlyAdmin):
    """Commands that have not taken effect yet."""

    list_display = ("id", "runner", "seq", "kind", "actor", "generation", "index", "created")
    list_filter = ("kind",)
    list_select_related = ("runner",)
    search_fields = ("=runner__id", "=actor_id")
    search_help_text = "the whole id of a runner or an actor"
    ordering = ("-id",)
    actor = linked("actor_id", "actor", "actors_actor")
    created = moment("created_at", "given")


@admin.register(ActorName)
class ActorNameAdmin(ReadOnlyAdmin):
    """Names actors may have."""

    list_display = ("name", "namespace", "about")
    list_filter = ("namespace",)
    list_select_related = ("namespace",)
    search_fields = ("name__startswith",)
    ordering = ("name",)

    @admin.display(description="metadata")
    def about(self, row: ActorName) -> SafeString:
        """Show what a runner announced of it."""
        return preformatted(json.dumps(row.metadata, indent=2)) if row.metadata else SafeString(NOTHING)


def _kind_of(error: Any) -> str:
    """Return what kind of error it is: some are told with what is known of them, by their kind."""
    return ", ".join(error) if isinstance(error, dict) else str(error or NOTHING)
