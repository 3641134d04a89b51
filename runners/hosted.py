"""What a runner hosts according to the rows of a higher house, which registers its reader when Django starts."""

from collections.abc import Callable

Life = tuple[str, int]
"""An actor's id and a generation of it."""

_readers: list[Callable[[str], set[Life]]] = []


def register_hosted(reader: Callable[[str], set[Life]]) -> None:
    """Have `reader` asked for the lives a runner has by its id: those it has spoken of and not ended."""
    _readers.append(reader)


def hosted_lives(runner_id: str) -> set[Life]:
    """Return the lives that the runner should have and must know of."""
    return {life for reader in _readers for life in reader(runner_id)}
