"""Tags and filters of the console's templates."""

from collections.abc import Sequence
from datetime import timedelta

from django import template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from orchestrator.sequence import length

register = template.Library()

WIDTH, HEIGHT = 240, 40


@register.simple_tag
def bars(counts: Sequence[int]) -> SafeString:
    """Return the bars of a little chart, as wide and high as `WIDTH` and `HEIGHT`."""
    most, step = max([*counts, 1]), WIDTH / max(len(counts), 1)
    drawn = [(round(step * n, 1), round(HEIGHT * count / most, 1)) for n, count in enumerate(counts) if count]
    places = ((x, HEIGHT - high, round(step - 0.8, 1), high) for x, high in drawn)
    return format_html_join("", '<rect x="{}" y="{}" width="{}" height="{}"/>', places)


@register.filter
def length_of_time(value: timedelta) -> str:
    """Return a length of time as a reader likes it."""
    return length(value.total_seconds())
