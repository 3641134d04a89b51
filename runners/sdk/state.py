"""A small state that is kept by itself."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any


class State(MutableMapping[str, Any]):
    """A dict of JSON values. What changes is saved within half a second, and before the actor sleeps or stops.

    Values inside values may be changed in place. `await state.save()` returns when all is saved; until then the
    death of the process can undo the last changes. All of it together may be of 128 KiB.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        touched: Callable[[], None],
        save: Callable[[], Awaitable[None]],
    ) -> None:
        """`touched` hears of every access: what is handed out may be changed in place."""
        self._values = dict(values)
        self._touched = touched
        self._save = save

    async def save(self) -> None:
        """Save now, with everything else of this actor that is kept. Raises KvError."""
        self._touched()
        await self._save()

    def as_json(self) -> bytes:
        """Return the state as it is kept. Raises TypeError for what JSON cannot say."""
        return json.dumps(self._values, ensure_ascii=False, separators=(",", ":")).encode()

    def __getitem__(self, name: str) -> Any:
        self._touched()
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a value. Raises TypeError for one that JSON cannot say."""
        json.dumps(value)
        self._touched()
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        self._touched()
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"State({self._values!r})"
