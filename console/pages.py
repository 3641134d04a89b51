"""The pages of the console as pieces of HTML, which are served whole first and replaced one by one later."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.template.loader import render_to_string

from console.looks import Overview, look_at_actor, look_at_runner

Look = Callable[[], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its template, and the pieces that change, each with a template of its own in `console/pieces/`."""

    template: str
    pieces: tuple[str, ...]
    look: Look

    def render(self) -> dict[str, str] | None:
        """Return the pieces as they are now, by name; None if what the page is about is no more."""
        seen = self.look()
        if seen is None:
            return None
        return {name: render_to_string(f"console/pieces/{name}.html", seen) for name in self.pieces}


OVERVIEW = ("pools", "actors", "wakes", "latency", "failures", "parts")
ACTOR = ("actor_facts", "actor_why", "actor_wakes", "actor_picture")
RUNNER = ("runner_facts", "runner_actors", "runner_arrows")


def page_of(kind: str, pk: str, *, kept: bool) -> Page | None:
    """Return a page by its kind (`overview`, `actor`, `runner`) and what it is about; None for no such kind.

    `kept`: it is looked at again and again, by a thread that may take its time.
    """
    match kind:
        case "overview":
            return Page("console/overview.html", OVERVIEW, Overview(counting=kept).look)
        case "actor":
            return Page("console/actor.html", ACTOR, partial(look_at_actor, pk))
        case "runner":
            return Page("console/runner.html", RUNNER, partial(look_at_runner, pk))
        case _:
            return None
