"""Which WebSockets hibernate with an actor, according to rows of a higher house, which registers its reader."""

from collections.abc import Callable, Collection
from datetime import datetime

from runners.protocol.messages import HibernatingRequest

Reader = Callable[[Collection[str], datetime], dict[str, tuple[HibernatingRequest, ...]]]

_readers: list[Reader] = []


def register_hibernating(reader: Reader) -> None:
    """Have `reader` asked, in the transaction that starts them, for the pairs of actors by their ids."""
    _readers.append(reader)


def take_hibernating(actor_ids: Collection[str], now: datetime) -> dict[str, tuple[HibernatingRequest, ...]]:
    """Return the pairs that the StartActor of each actor has to list (PROTOCOL §5.6), if there are any."""
    listed: dict[str, tuple[HibernatingRequest, ...]] = {}
    for reader in _readers:
        for actor_id, pairs in reader(actor_ids, now).items():
            listed[actor_id] = listed.get(actor_id, ()) + pairs
    return listed
