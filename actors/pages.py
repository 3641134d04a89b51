"""The page of an actor's timeline in the admin: its picture, where the time went, and every arrow."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from django import forms
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString, mark_safe

from actors.budget import Phase, budgets
from actors.models import Actor
from actors.timeline import actor_timeline
from orchestrator.admin import NOTHING, arrows, rows, unbroken
from orchestrator.models import TimelineEntry
from orchestrator.pictures import mermaid
from orchestrator.sequence import length, svg

MOST = 2_000
"""Arrows of an actor on one page."""
USUAL = 200


class Parts(forms.Form):
    """Which arrows are shown."""

    generation = forms.IntegerField(min_value=0, required=False)
    since = forms.DateTimeField(required=False)
    until = forms.DateTimeField(required=False)
    last = forms.IntegerField(min_value=1, max_value=MOST, required=False)

    def entries(self, actor: Actor) -> list[TimelineEntry]:
        """Return the arrows; those of a form with mistakes are all."""
        wanted: dict[str, Any] = self.cleaned_data if self.is_valid() else {}
        moments = {name: wanted.get(name) for name in ("since", "until")}
        return actor_timeline(
            actor.pk,
            last=wanted.get("last") or USUAL,
            generation=wanted.get("generation"),
            **{name: at.replace(tzinfo=UTC) if at else None for name, at in moments.items()},
        )


def timeline_page(request: HttpRequest, actor_id: str, site: AdminSite) -> TemplateResponse:
    """Show the timeline of one actor to whoever may see actors."""
    if not request.user.has_perm("actors.view_actor"):
        raise PermissionDenied
    actor = Actor.objects.defer("input").filter(pk=actor_id).first()
    if actor is None:
        raise Http404
    form = Parts(request.GET)
    entries = form.entries(actor)
    context = {
        **site.each_context(request),
        "title": f"Timeline of {actor.pk}",
        "actor": actor,
        "form": form,
        "wakes": wakes_table(entries),
        "picture": picture(entries, f"Sequence diagram of actor {actor.pk}"),
        "source": mermaid(entries),
        "arrows": arrows(entries),
    }
    return TemplateResponse(request, "admin/actors/actor/timeline.html", context)


def picture(entries: Sequence[TimelineEntry], title: str) -> SafeString:
    """Return the sequence diagram, which has escaped whatever it was given."""
    return mark_safe(svg(entries, title))


def wakes_table(entries: Sequence[TimelineEntry]) -> SafeString | str:
    """Return the wakes with the lengths of their phases."""
    titles = ["began (UTC)", "generation", *(phase.value.replace("_", " ") for phase in Phase), "in all"]
    return rows(
        titles,
        (
            (
                unbroken(f"{wake.began_at:%Y-%m-%d %H:%M:%S}"),
                NOTHING if wake.generation is None else wake.generation,
                *(length(phases[p].total_seconds()) if p in phases else NOTHING for p in Phase),
                length(wake.total.total_seconds()),
            )
            for wake in budgets(entries)
            for phases in [dict(wake.phases)]
        ),
    )
