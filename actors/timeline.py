"""An actor's timeline: its own arrows and those of the runners that served it. `pictures.py` shows it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.db.models import Q

from actors.models import Actor
from orchestrator.models import TimelineEntry
from orchestrator.pictures import mermaid
from runners.models import ServerlessConnection

__all__ = ["actor_timeline", "mermaid"]

_TOGETHER = 50  # windows asked for in one query
_WAITING = ("pending", "backoff")
_WAIT_ARROWS = 100  # of one wait, that are shown before the StartActor it led to
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Window:
    """When a runner was the actor's: from the start of the wait it ended to the start of the next wait."""

    runner_id: str  # empty: the wait goes on
    since: datetime
    until: datetime | None


def actor_timeline(
    actor_id: str,
    *,
    last: int | None = None,
    generation: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[TimelineEntry]:
    """Return the actor's arrows in order of time, with those of its runners and of the `/start` that brought them.

    A runner's arrows are shown from when the actor began to wait for it until it next waited for one; while no
    `/start` is known to have brought a runner, all that are under way in the pool, or failed meanwhile. With
    `last`, no more than that many of the actor's newest arrows are looked at. A generation is shown from the call
    that led to it; `since` is the first moment shown, `until` the first that is not.
    """
    newest_first = TimelineEntry.objects.filter(actor_id=actor_id).order_by("-at", "-id")
    if generation is not None:
        began, next_began = _began(actor_id, generation), _began(actor_id, generation + 1)
        if began is None:
            return []
        newest_first = newest_first.filter(at__gte=began, at__lt=next_began or _NEVER)
    own = list(newest_first if last is None else newest_first[:last])[::-1]
    windows = list(_windows(own))
    others: dict[int, TimelineEntry] = {}
    for start in range(0, len(windows), _TOGETHER):
        others |= {entry.pk: entry for entry in _others(actor_id, windows[start : start + _TOGETHER])}
    shown = sorted([*own, *others.values()], key=lambda entry: (entry.at, entry.pk))
    if generation is not None and own:
        shown = [entry for entry in shown if own[0].at <= entry.at <= own[-1].at]
    return [e for e in shown if (since is None or e.at >= since) and (until is None or e.at < until)]


def _began(actor_id: str, generation: int) -> datetime | None:
    """Return the first moment of the wait that led to a generation; None if there is none such."""
    own = TimelineEntry.objects.filter(actor_id=actor_id)
    starts = own.filter(generation=generation, label="StartActor").order_by("at")
    first: datetime | None = starts.values_list("at", flat=True).first()
    if first is None:
        return None
    for at, data in own.filter(at__lt=first).order_by("-at", "-id").values_list("at", "data")[:_WAIT_ARROWS]:
        state = data.get("state")
        if state in (*_WAITING, "starting"):
            first = at
        elif state is not None:
            break
    return first


def _windows(own: Sequence[TimelineEntry]) -> Iterator[_Window]:
    window: _Window | None = None
    waits_since: datetime | None = None
    for entry in own:
        state = entry.data.get("state")
        if state in _WAITING:
            waits_since = waits_since or entry.at
        elif state == "starting":
            since = waits_since or entry.at
            if window is not None:
                yield replace(window, until=since)
            window, waits_since = _Window(entry.data.get("runner_id", ""), since, None), None
        elif state is not None:
            waits_since = None
    if window is not None:
        yield replace(window, until=waits_since)
    if waits_since is not None:
        yield _Window("", waits_since, None)


def _others(actor_id: str, windows: Sequence[_Window]) -> Iterator[TimelineEntry]:
    runner_ids = {window.runner_id for window in windows if window.runner_id}
    connections: dict[str, list[str]] = {}
    brought = ServerlessConnection.objects.filter(runner_id__in=runner_ids)
    for runner_id, connection_id in brought.values_list("runner_id", "pk"):
        connections.setdefault(runner_id, []).append(connection_id)
    wanted = Q()
    for window in windows:
        when = Q(at__gte=window.since) if window.until is None else Q(at__gte=window.since, at__lt=window.until)
        known = connections.get(window.runner_id) or _under_way(actor_id, window.since, window.until)
        whose = Q(connection_id__in=known)
        wanted |= (whose | Q(runner_id=window.runner_id) if window.runner_id else whose) & when
    yield from TimelineEntry.objects.filter(wanted, actor_id="")


def _under_way(actor_id: str, since: datetime, until: datetime | None) -> list[str]:
    """Return the `/start` requests of the actor's pool, made in this time, that have not brought a runner."""
    pool = Actor.objects.filter(pk=actor_id).values_list("namespace_id", "pool_name").first()
    if pool is None:
        return []
    made = ServerlessConnection.objects.filter(pool__namespace_id=pool[0], pool__name=pool[1], runner_id="")
    made = made.filter(created_at__gte=since)
    return list((made if until is None else made.filter(created_at__lt=until)).values_list("pk", flat=True))
