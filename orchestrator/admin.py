"""The admin's pages of what every house uses, and what the other houses' pages share.

The pages are there to look: rows of the workflows are changed by signals alone, never by hand.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from orchestrator import clock
from orchestrator.access import Scope
from orchestrator.ids import is_id
from orchestrator.models import AccessToken, AuditEntry, Namespace, SetAsideSignal, TimelineEntry
from orchestrator.pages import KeysetChangeList
from orchestrator.pictures import table
from orchestrator.tokens import create_token, revoke_token

admin.site.site_header = "Torpor"
admin.site.site_title = "Torpor"
admin.site.index_title = "What there is"
admin.site.enable_nav_sidebar = False  # the lists need the room

NOTHING = "-"
SHORT = 12  # characters of an id; ids begin with their time, so that these tell most apart


if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
else:
    AnyModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(AnyModelAdmin):
    """Rows to look at: nothing can be added, changed or deleted."""

    change_list_template = "torpor/change_list.html"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count
    sortable_by = ()
    list_per_page = 50

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeysetChangeList]:
        """Page by key."""
        return KeysetChangeList

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False


def note_by_hand(request: HttpRequest, action: str, model: type[Model], target: str) -> AuditEntry:
    """Write down what somebody is about to do, so that nothing is done without it."""
    return AuditEntry.objects.create(
        user=request.user.get_username(), action=action, model=model._meta.model_name or "", target=target
    )


def moment(field: str, title: str) -> Callable[[Any, Model], str]:
    """Return a column that shows a time to the second, in UTC, and by which the list can be ordered."""

    @admin.display(description=title, ordering=field)
    def show(_: Any, row: Model) -> str:
        value = getattr(row, field)
        return unbroken(f"{value:%Y-%m-%d %H:%M:%S}") if value else NOTHING

    return show


def shortened(field: str, title: str) -> Callable[[Any, Model], str]:
    """Return a column of ids, cut short: the row's page has all of it, and so has the pointer."""

    @admin.display(description=title, ordering=field)
    def show(_: Any, row: Model) -> str:
        text = getattr(row, field)
        short = f"{text[:SHORT]}…" if len(text) > SHORT + 1 else text
        return format_html('<span class="nowrap" title="{}">{}</span>', text, short)

    return show


def linked(field: str, title: str, page: str) -> Callable[[Any, Model], str]:
    """Return a column of ids of another model's rows, cut short, as links to their pages (`app_model`)."""

    @admin.display(description=title, ordering=field)
    def show(_: Any, row: Model) -> str:
        pk = getattr(row, field)
        return link(page, pk, f"{pk[:SHORT]}…")

    return show


def link(page: str, pk: str, text: str | None = None) -> SafeString | str:
    """Return a link to the page of one row; a dash for no row."""
    if not pk:
        return NOTHING
    url = reverse(f"admin:{page}_change", args=[pk])
    return format_html('<a href="{}" title="{}">{}</a>', url, pk, text or pk)


def unbroken(text: str) -> SafeString:
    """Return text that stays on one line."""
    return format_html('<span class="nowrap">{}</span>', text)


def list_link(page: str, text: str, **lookups: str) -> SafeString:
    """Return a link to the rows of a list that these lookups find."""
    return link_to(reverse(f"admin:{page}_changelist"), text, **lookups)


def link_to(url: str, text: str, **query: str) -> SafeString:
    """Return a link to a page with these parameters."""
    return format_html('<a href="{}?{}">{}</a>', url, urlencode(query), text)


def rows(titles: Sequence[str], cells: Iterable[Sequence[Any]]) -> SafeString | str:
    """Return a table; a dash for one without rows."""
    lines = [[format_html_join("", "<td>{}</td>", ((cell,) for cell in line))] for line in cells]
    if not lines:
        return NOTHING
    head = format_html_join("", "<th>{}</th>", ((title,) for title in titles))
    body = format_html_join("", "<tr>{}</tr>", lines)
    return format_html("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>", head, body)


def arrows(entries: Sequence[TimelineEntry]) -> SafeString | str:
    """Return arrows as a table."""
    titles = ["time (UTC)", "since the last", "from and to", "what", "generation"]
    return rows(titles, ((unbroken(at), unbroken(passed), *rest) for at, passed, *rest in table(entries)))


def preformatted(text: str) -> SafeString:
    """Return text as it is, in letters of one width."""
    return format_html("<pre>{}</pre>", text)


@admin.register(Namespace)
class NamespaceAdmin(ReadOnlyAdmin):
    """Namespaces; they are made over the API and never deleted. Their display name may be changed."""

    list_display = ("name", "display_name", "id", "created")
    search_fields = ("=id", "name__startswith")
    fields = ("id", "name", "display_name", "created_at", "contents")
    readonly_fields = ("id", "name", "created_at", "contents")
    created = moment("created_at", "created")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may change namespaces may."""
        return admin.ModelAdmin.has_change_permission(self, request, obj)

    @admin.display(description="in it")
    def contents(self, row: Namespace) -> SafeString:
        """Lead to what there is in the namespace."""
        pages = {"actors": "actors_actor", "runners": "runners_runner", "pools": "runners_runnerconfig"}
        links = ((list_link(page, text, namespace__id__exact=row.pk),) for text, page in pages.items())
        return format_html_join(", ", "{}", links)


if TYPE_CHECKING:
    AnyTokenForm = forms.ModelForm[AccessToken]
else:
    AnyTokenForm = forms.ModelForm


class TokenForm(AnyTokenForm):
    """A new token: everything but the token itself."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope.value, scope.value) for scope in Scope], widget=forms.CheckboxSelectMultiple
    )
    expires_at = forms.SplitDateTimeField(required=False, widget=AdminSplitDateTime)

    def clean_expires_at(self) -> datetime | None:
        """Refuse a time that is over."""
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= clock.now():
            raise forms.ValidationError("The token would have expired already.")
        return expires_at


@admin.register(AccessToken)
class AccessTokenAdmin(ReadOnlyAdmin):
    """Tokens of namespaces. They are made and revoked here, and never changed."""

    form = TokenForm
    list_display = ("name", "namespace", "for_what", "created", "expires", "revoked")
    list_filter = ("namespace",)
    list_select_related = ("namespace",)
    search_fields = ("=id", "label__startswith")
    fields = ("namespace", "label", "scopes", "expires_at")
    actions = ("revoke",)
    created = moment("created_at", "created")
    expires = moment("expires_at", "expires")
    revoked = moment("revoked_at", "revoked")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may add tokens may."""
        return admin.ModelAdmin.has_add_permission(self, request)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whoever may delete tokens may."""
        return request.user.has_perm("orchestrator.delete_accesstoken")

    @admin.display(description="name", ordering="label")
    def name(self, row: AccessToken) -> str:
        """Show the name, or the id of one without."""
        return str(row)

    @admin.display(description="scopes")
    def for_what(self, row: AccessToken) -> str:
        """Show the scopes in a line."""
        return ", ".join(row.scopes)

    def save_model(self, request: HttpRequest, obj: AccessToken, form: Any, change: bool) -> None:
        """Make the token as the API does, and remember it for the one page that shows it."""
        audit = note_by_hand(request, "make", AccessToken, "")
        made, obj.secret = create_token(  # type: ignore[attr-defined]
            namespace=obj.namespace, label=obj.label, scopes=obj.scopes, expires_at=obj.expires_at
        )
        obj.pk = made.pk
        AuditEntry.objects.filter(pk=audit.pk).update(target=made.pk, outcome="made")

    def response_add(self, request: HttpRequest, obj: AccessToken, post_url_continue: Any = None) -> HttpResponse:
        """Show the token, this once. It passes through no cookie and no log."""
        shown = {**self.admin_site.each_context(request), "title": "Token made", "token": obj}
        return TemplateResponse(request, "admin/token_made.html", shown | {"secret": vars(obj)["secret"]})

    @admin.action(description="Revoke the selected tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[AccessToken]) -> None:
        """Make them worthless."""
        for row in chosen:
            note_by_hand(request, "revoke", AccessToken, row.pk)
            revoke_token(row)


@admin.register(TimelineEntry)
class TimelineEntryAdmin(ReadOnlyAdmin):
    """Every recorded arrow, the newest first."""

    list_display = ("time", "way", "label", "actor", "generation", "runner", "connection")
    list_display_links = ("time",)
    search_fields = ("=actor_id",)  # see get_search_results
    search_help_text = "the whole id of an actor, a runner, a /start request or a pool"
    ordering = ("-id",)
    actor = linked("actor_id", "actor", "actors_actor")
    runner = linked("runner_id", "runner", "runners_runner")
    connection = linked("connection_id", "/start request", "runners_serverlessconnection")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[TimelineEntry], search_term: str
    ) -> tuple[QuerySet[TimelineEntry], bool]:
        """Search by one id, in the column that knows it: each has an index, but all of them together have none."""
        term = search_term.strip()
        if not term:
            return queryset, False
        for column in ("actor_id", "runner_id", "connection_id", "pool_id") if is_id(term) else ():
            found = queryset.filter(**{column: term}).exclude(**{column: ""})
            if found.order_by().exists():
                return found, False
        return queryset.none(), False

    @admin.display(description="time", ordering="at")
    def time(self, row: TimelineEntry) -> SafeString:
        """Show the time to the millisecond."""
        return unbroken(f"{row.at:%Y-%m-%d %H:%M:%S}.{row.at.microsecond // 1000:03}")

    @admin.display(description="from and to")
    def way(self, row: TimelineEntry) -> str:
        """Show whom the arrow passes."""
        return " → ".join([row.source, *row.via, row.target])


@admin.register(SetAsideSignal)
class SetAsideSignalAdmin(ReadOnlyAdmin):
    """Signals the engine failed on. They may be deleted when they have been looked into."""

    list_display = ("id", "workflow", "key", "error", "created")
    list_filter = ("workflow",)
    search_fields = ("=key",)
    created = moment("created_at", "set aside")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may delete such signals may."""
        return admin.ModelAdmin.has_delete_permission(self, request, obj)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """What was done by hand, the newest first."""

    list_display = ("when", "user", "action", "model", "target", "outcome")
    list_display_links = ("when",)
    search_fields = ("=user", "=target")
    search_help_text = "a user's name, or the whole id of what was touched"
    when = moment("at", "when")
