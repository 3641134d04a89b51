"""Whether figures taken in turn level off: the line through them, and what it adds in an hour. Does no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

WARM_UP = 0.3
"""This part of the samples, the first, is left out: caches fill and threads start."""


@dataclass(frozen=True)
class Slope:
    """How a figure went: for how long, its first and last value, its highest, and how much it grows in an hour."""

    seconds: float
    first: float
    last: float
    highest: float
    per_hour: float


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """Return how a figure went. Samples are (seconds, value), in order; the line is that of the least squares."""
    kept = samples[int(len(samples) * WARM_UP) :]
    values = [value for _, value in kept]
    middle_s = sum(at for at, _ in kept) / len(kept)
    middle = sum(values) / len(kept)
    spread = sum((at - middle_s) ** 2 for at, _ in kept)
    rise = sum((at - middle_s) * (value - middle) for at, value in kept)
    seconds = kept[-1][0] - kept[0][0]
    return Slope(seconds, values[0], values[-1], max(values), rise / spread * 3600 if spread else 0.0)
