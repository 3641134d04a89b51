"""Operations of the admin on chosen rows: each asks for its own permission, shows first what it would do (the dry
run), does it when that is confirmed, and leaves an audit row for each row it touched.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString

from orchestrator.admin import NOTHING, ReadOnlyAdmin, note_by_hand
from orchestrator.errors import OrchestratorError
from orchestrator.models import AuditEntry

logger = logging.getLogger(__name__)

MOST = 1_000
"""Rows one operation takes on at one time."""


def _takes_all(_: Any) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that can be done to a row. `refusal` says why one is left alone, None if it is not.

    The permission is `name_model`, as `actors.wake_actor`.
    """

    name: str
    title: str
    meaning: str
    do: Callable[[Any], None]
    refusal: Callable[[Any], str | None] = _takes_all


class OperatedAdmin(ReadOnlyAdmin):
    """Rows to look at, and operations on them."""

    operations: Sequence[Operation] = ()

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the operations this user may carry out."""
        offered = [one for one in self.operations if self._may(request, one)]
        return {one.name: (partial(self._ask_in_list, one), one.name, one.title) for one in offered}

    def get_urls(self) -> list[Any]:
        """Add the page that asks, and that which does it."""
        view = self.admin_site.admin_view(self.operate)
        return [path("operate/<str:name>/", view, name=self._url_name), *super().get_urls()]

    def operate(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show what an operation would do to the rows named by `id`, or do it if that is confirmed."""
        operation = next((one for one in self.operations if one.name == name), None)
        if operation is None:
            raise Http404
        if not self._may(request, operation):
            raise PermissionDenied
        confirmed = request.method == "POST" and "confirmed" in request.POST
        given = request.POST if request.method == "POST" else request.GET
        rows = self.get_queryset(request).filter(pk__in=given.getlist("id")[:MOST])
        back = self._back(request, given.get("back", ""))
        if not confirmed:
            return self._ask(request, operation, rows, back)
        for row in rows:
            self._carry_out(request, operation, row)
        return HttpResponseRedirect(back)

    def buttons(self, row: Any) -> SafeString | str:
        """Return links to the operations a row can be subjected to; each asks before it does anything."""
        page = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])
        links = [
            (reverse(f"admin:{self._url_name}", args=[one.name], query={"id": row.pk, "back": page}), one.title)
            for one in self.operations
            if one.refusal(row) is None
        ]
        buttons = format_html_join(" ", '<a class="button" href="{}">{}</a>', links)
        return format_html('<span class="operations">{}</span>', buttons) if links else NOTHING

    buttons.short_description = "operations"  # type: ignore[attr-defined]  # the admin looks for it there

    @property
    def _url_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_operate"

    def _may(self, request: HttpRequest, operation: Operation) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{operation.name}_{self.opts.model_name}")

    def _ask_in_list(
        self, operation: Operation, _: Any, request: HttpRequest, chosen: QuerySet[Any]
    ) -> HttpResponse:
        return self._ask(request, operation, chosen[:MOST], request.get_full_path())

    def _ask(self, request: HttpRequest, operation: Operation, rows: QuerySet[Any], back: str) -> TemplateResponse:
        found = [(row, operation.refusal(row)) for row in rows]
        context = {
            **self.admin_site.each_context(request),
            "title": operation.title,
            "opts": self.opts,
            "operation": operation,
            "found": found,
            "willing": sum(refusal is None for _, refusal in found),
            "action": reverse(f"admin:{self._url_name}", args=[operation.name]),
            "back": back,
        }
        return TemplateResponse(request, "torpor/operate.html", context)

    def _carry_out(self, request: HttpRequest, operation: Operation, row: Any) -> None:
        refusal = operation.refusal(row)
        if refusal is not None:  # it has changed since it was shown
            messages.warning(request, f"{row.pk} was left alone: {refusal}")
            return
        audit = note_by_hand(request, operation.name, self.model, row.pk)
        try:
            operation.do(row)
        except (OrchestratorError, redis.RedisError, OSError) as error:
            logger.exception("operation failed", extra={"action": "operate_failed", "operation": operation.name})
            told = error.message if isinstance(error, OrchestratorError) else "a store is away"
            AuditEntry.objects.filter(pk=audit.pk).update(outcome=f"failed: {told}"[:200])
            messages.error(request, f"{operation.title} {row.pk}: {told}")
        else:
            messages.success(request, f"{operation.title} {row.pk}: asked for")

    def _back(self, request: HttpRequest, wished: str) -> str:
        """Return where to go afterwards, which is never another site."""
        if url_has_allowed_host_and_scheme(wished, allowed_hosts={request.get_host()}):
            return wished
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
