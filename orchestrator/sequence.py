"""Recorded arrows as a sequence diagram, drawn as SVG without a line of JavaScript. Does no I/O.

The colours are the page's own (`currentColor`), so that it is read by day and by night; each arrow has its words
as a title, for the pointer and for screen readers.
"""

from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import Protocol

from orchestrator.arrows import Participant

COLUMN, GUTTER, ROW, HEAD, MARGIN = 150, 96, 34, 44, 16  # pixels
LETTER = 6.3  # pixels a letter is wide, about
LONGEST_LABEL = 60


# In this order no arrow turns back on its way.
_COLUMNS = (
    Participant.USER,
    Participant.GATEWAY,
    Participant.ACTOR,
    Participant.SERVERLESS,
    Participant.ENDPOINT,
    Participant.RUNNER_WORKFLOW,
    Participant.RUNNER_WS,
    Participant.RUNNER,
)


class Told(Protocol):
    """What is drawn of a recorded arrow."""

    @property
    def at(self) -> datetime:
        """When."""

    @property
    def source(self) -> str:
        """From whom."""

    @property
    def target(self) -> str:
        """To whom."""

    @property
    def via(self) -> Sequence[str]:
        """Whom it passes on its way."""

    @property
    def label(self) -> str:
        """What."""

    @property
    def generation(self) -> int | None:
        """Of which life."""


def svg(arrows: Sequence[Told], title: str) -> str:
    """Return the diagram: a row for each arrow, with the time since the row before, and a line per generation."""
    used = {name for arrow in arrows for name in (arrow.source, *arrow.via, arrow.target)}
    columns: list[str] = [participant.value for participant in _COLUMNS if participant.value in used]
    x = {name: GUTTER + COLUMN * index + COLUMN // 2 for index, name in enumerate(columns)}
    width = GUTTER + COLUMN * len(columns) + MARGIN
    y, parts, generation, before = HEAD + ROW, list[str](), None, arrows[0].at if arrows else None
    for arrow in arrows:
        if arrow.generation is not None and arrow.generation != generation:
            generation = arrow.generation
            parts.append(_divider(y, width, f"generation {generation}"))
            y += ROW
        parts.append(_arrow(arrow, x, y, width, before or arrow.at))
        y, before = y + ROW, arrow.at
    height = y + HEAD // 2
    heads = "".join(_head(name, x[name], height) for name in columns)
    described = f"{len(arrows)} arrows between {', '.join(columns)}." if arrows else "Nothing is recorded yet."
    return (
        f'<svg class="sequence" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="system-ui, sans-serif" font-size="12" '
        f'fill="currentColor" stroke="none"><title>{escape(title)}</title><desc>{escape(described)}</desc>'
        f"{heads}{''.join(parts)}</svg>"
    )


def length(seconds: float) -> str:
    """Return a length of time as a reader likes it."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _head(name: str, x: int, height: int) -> str:
    return (
        f'<line x1="{x}" y1="{HEAD}" x2="{x}" y2="{height}" stroke="currentColor" stroke-opacity=".3" '
        f'stroke-dasharray="3 4"/>'
        f'<rect x="{x - COLUMN // 2 + 6}" y="8" width="{COLUMN - 12}" height="{HEAD - 12}" rx="6" fill="none" '
        f'stroke="currentColor" stroke-opacity=".5"/>'
        f'<text x="{x}" y="{HEAD - 16}" text-anchor="middle" font-weight="600">{escape(name)}</text>'
    )


def _divider(y: int, width: int, text: str) -> str:
    return (
        f'<g><line x1="{GUTTER}" y1="{y}" x2="{width}" y2="{y}" stroke="currentColor" stroke-opacity=".35"/>'
        f'<text x="8" y="{y + 4}" font-weight="600">{escape(text)}</text></g>'
    )


def _arrow(arrow: Told, x: dict[str, int], y: int, width: int, before: datetime) -> str:
    hops = [arrow.source, *arrow.via, arrow.target]
    passed = "+" + length((arrow.at - before).total_seconds())
    words = f"{' → '.join(hops)}: {arrow.label}, at {arrow.at:%Y-%m-%d %H:%M:%S.%f} UTC, {passed}"
    drawn = _loop(x[arrow.source], y) if arrow.source == arrow.target else _line([x[hop] for hop in hops], y)
    label, anchor, at = _placed(arrow, [x[hop] for hop in hops], width)
    return (
        f'<g class="arrow"><title>{escape(words)}</title><text x="{GUTTER - 12}" y="{y + 4}" text-anchor="end" '
        f'font-size="11" fill-opacity=".7">{passed}</text>{drawn}'
        f'<text x="{at:g}" y="{y - 6}" text-anchor="{anchor}">{escape(label)}</text></g>'
    )


def _placed(arrow: Told, xs: Sequence[int], width: int) -> tuple[str, str, float]:
    """Return the label, cut short if it must be, and where it stands: over its arrow, and inside the picture."""
    long = len(arrow.label) > LONGEST_LABEL
    label = f"{arrow.label[: LONGEST_LABEL - 1]}…" if long else arrow.label
    half = len(label) * LETTER / 2
    middle = float(xs[0]) if arrow.source == arrow.target else (min(xs) + max(xs)) / 2
    return label, "middle", max(min(middle, width - half - 4), GUTTER + half)


def _line(xs: Sequence[int], y: int) -> str:
    return "".join(
        f'<line x1="{a}" y1="{y}" x2="{b}" y2="{y}" stroke="currentColor" stroke-width="1.5"/>{_tip(a, b, y)}'
        for a, b in pairwise(xs)
    )


def _loop(x: int, y: int) -> str:
    way = f"M{x} {y}h26v10h-20"
    return f'<path d="{way}" fill="none" stroke="currentColor" stroke-width="1.5"/>{_tip(x + 26, x, y + 10)}'


def _tip(a: int, b: int, y: int) -> str:
    back = -8 if b > a else 8
    return f'<path d="M{b} {y}l{back} -4v8z"/>'
