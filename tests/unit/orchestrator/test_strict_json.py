import json

import pytest
from hypothesis import given, strategies as st

from orchestrator.strict_json import parse_object

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES))
def test_an_object_comes_back_as_it_was(value):
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "nothing"),
        (b"[]", "an array"),
        (b'["a", "b"]', "fields in order"),
        (b"null", "null"),
        (b'"text"', "text"),
        (b"{", "unfinished"),
        (b"{} {}", "two objects"),
        (b"{}x", "text after it"),
        (b"{'a': 1}", "single quotes"),
        (b'{"a": 1,}', "a comma too many"),
        (b'{"a": 1, "a": 1}', "a field twice"),
        (b'{"a": {"b": 1, "b": 2}}', "an inner field twice"),
        (b'{"a": NaN}', "not a number"),
        (b'{"a": -Infinity}', "no number"),
        (b'{"a": 1e999}', "no number a computer has"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "a number without end"),
        (b'{"a": "\\u0000"}', "NUL in text"),
        (b'{"\\u0000": 1}', "NUL in a name"),
        (b'{"a": ["\\ud800"]}', "half of a pair"),
        (b'{"a": "\n"}', "a bare line break"),
        (b'\xef\xbb\xbf{"a": 1}', "a byte order mark"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested without end"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_one_json_object_is_refused(body, why):
    with pytest.raises(ValueError, match=r"\w"):
        parse_object(body)
