"""Who lived when, by the runners' own logs: no two generations of an actor at once (I1)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tests.support.endpoint import Application


@dataclass(frozen=True)
class Lived:
    """One life of an actor; moments in ms since the epoch, `ended_ms` None for one that goes on."""

    generation: int
    began_ms: int
    ended_ms: int | None


def lives(applications: Iterable[Application]) -> dict[str, list[Lived]]:
    """Return each actor's lives in the order of their beginnings, in whichever process they were led."""
    found: dict[str, list[Lived]] = defaultdict(list)
    for application in applications:
        ends = {(e["actorId"], e["generation"]): e["at"] for e in application.events("actor_stop")}
        for start in application.events("actor_start"):
            place = (start["actorId"], start["generation"])
            found[start["actorId"]].append(Lived(start["generation"], start["at"], ends.get(place)))
    return {actor_id: sorted(of, key=lambda one: one.began_ms) for actor_id, of in found.items()}


def assert_one_at_a_time(applications: Iterable[Application]) -> None:
    """Assert that each life of an actor began when the one before had ended, one generation after the other."""
    for actor_id, of_actor in lives(applications).items():
        assert [life.generation for life in of_actor] == list(range(len(of_actor))), (actor_id, of_actor)
        for earlier, later in pairwise(of_actor):
            assert earlier.ended_ms is not None, (actor_id, of_actor)
            assert earlier.ended_ms <= later.began_ms, (actor_id, of_actor)
