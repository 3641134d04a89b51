"""The pages of the console, whole as they are first seen."""

from functools import wraps
from typing import Any

from django.contrib.admin.views.decorators import staff_member_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_safe

from console.looks import find
from console.pages import page_of
from console.permission import may_watch


def _for_watchers(view: Any) -> Any:
    @require_safe
    @staff_member_required
    @wraps(view)
    def allowed(request: HttpRequest, **arguments: str) -> HttpResponse:
        if not may_watch(request.user):
            raise PermissionDenied
        answer: HttpResponse = view(request, **arguments)
        return answer

    return allowed


@_for_watchers
def overview(request: HttpRequest) -> HttpResponse:
    """Show the engine, or lead to what was searched for."""
    term = request.GET.get("find", "").replace("\0", "").strip()  # PostgreSQL cannot even look for such a text
    if term and (found := find(term)):
        return HttpResponseRedirect(reverse(f"console:{found[0]}", args=[found[1]]))
    return _page(request, "overview", "", sought=term)


@_for_watchers
def actor(request: HttpRequest, actor_id: str) -> HttpResponse:
    """Show one actor."""
    return _page(request, "actor", actor_id)


@_for_watchers
def runner(request: HttpRequest, runner_id: str) -> HttpResponse:
    """Show one runner."""
    return _page(request, "runner", runner_id)


def _page(request: HttpRequest, kind: str, pk: str, **more: Any) -> HttpResponse:
    page = page_of(kind, pk, kept=False)
    pieces = page.render() if page is not None else None
    if page is None or pieces is None:
        raise Http404
    shown = {name: mark_safe(piece) for name, piece in pieces.items()}  # rendered, and so escaped, by templates
    return render(request, page.template, {"kind": kind, "pk": pk, "pieces": shown, **more})
