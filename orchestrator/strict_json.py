"""JSON to the letter: what is refused here would be kept wrongly, or not at all. Does no I/O."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

MAX_DEPTH = 128
"""Objects and arrays within each other; whoever writes such a value again has to follow it too."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the one JSON object of a body.

    ValueError for anything else: other values, text after it, a field given twice, numbers JSON does not have,
    text that no database can keep (NUL, half of a surrogate pair), nesting too deep to follow.
    """
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite
        )
        for text in _texts(value, MAX_DEPTH):
            _check_text(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same field twice")
    return fields


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _texts(value: Any, depth: int) -> Iterator[str]:
    if depth < 0:
        raise RecursionError
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield name
                yield from _texts(inner, depth - 1)
        case list():
            for inner in value:
                yield from _texts(inner, depth - 1)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("text must not contain NUL")
    text.encode("utf-8")
