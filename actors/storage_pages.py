"""The pages of an actor's key-value storage in the admin: its keys, and one value."""

from typing import Any

from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from actors import kv, storage_browser as browser
from actors.models import Actor
from orchestrator.admin import link_to, rows, unbroken

PERMISSION = "actors.view_storedentry"


@require_safe
def storage_page(request: HttpRequest, actor_id: str, site: AdminSite) -> HttpResponse:
    """Show the keys of an actor's storage, or the value of one `key`, to whoever may see stored entries."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    actor = Actor.objects.defer("input").filter(pk=actor_id).first()
    if actor is None:
        raise Http404
    if "key" in request.GET:
        return _value(request, actor, site)
    prefix = request.GET.get("prefix", "")
    first = _bytes(request.GET.get("from", ""))
    keys = browser.keys_from(actor.pk, kv.key_of_text(prefix), first)
    url = reverse("admin:actors_actor_storage", args=[actor.pk])
    table = rows(
        ["key", "bytes of the value", "put there (UTC)"],
        (
            (
                link_to(url, kv.key_text(one.key) or "the empty key", key=one.key.hex()),
                f"{one.value_bytes:,}",
                unbroken(f"{one.updated_at:%Y-%m-%d %H:%M:%S}"),
            )
            for one in keys.entries
        ),
    )
    onward = None if keys.next is None else {"prefix": prefix, "from": keys.next.hex()}
    context = {
        "keys": table,
        "empty": not keys.entries,
        "prefix": prefix,
        "is_first": not first,
        "next": None if onward is None else link_to(url, "Next →", **onward),
        "used": filesizeformat(browser.used_bytes(actor.pk)),
        "quota": filesizeformat(settings.ENV.actor_storage_bytes),
    }
    return _page(request, actor, site, "storage", f"Storage of {actor.pk}", context)


def _value(request: HttpRequest, actor: Actor, site: AdminSite) -> HttpResponse:
    key = _bytes(request.GET["key"])
    found = browser.find_value(actor.pk, key)
    if found is None:
        raise Http404
    value, updated_at = found
    if "raw" in request.GET:
        headers = {"Content-Disposition": 'attachment; filename="value"', "X-Content-Type-Options": "nosniff"}
        return HttpResponse(value, content_type="application/octet-stream", headers=headers)
    kind, text = browser.shown(value)
    url = reverse("admin:actors_actor_storage", args=[actor.pk])
    context = {
        "key": kv.key_text(key),
        "kind": kind,
        "text": text,
        "value_bytes": len(value),
        "updated_at": updated_at,
        "raw": link_to(url, "Download as it is", key=key.hex(), raw="1"),
    }
    return _page(request, actor, site, "stored_value", f"A value of {actor.pk}", context)


def _page(
    request: HttpRequest, actor: Actor, site: AdminSite, template: str, title: str, context: dict[str, Any]
) -> TemplateResponse:
    whole = {**site.each_context(request), "title": title, "actor": actor, **context}
    return TemplateResponse(request, f"admin/actors/actor/{template}.html", whole)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Http404 from None
