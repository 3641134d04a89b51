"""Which bytes are one CBOR item."""

import cbor2
import pytest
from hypothesis import given, strategies as st

from gateway.cbor import is_well_formed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_an_encoder_makes_is_well_formed_and_nothing_shorter_or_longer_is(value):
    encoded = cbor2.dumps(value)
    assert is_well_formed(encoded)
    assert not is_well_formed(encoded[:-1])
    assert not is_well_formed(encoded + b"\xf6")


@given(st.binary(max_size=64))
def test_it_never_fails(data):
    assert is_well_formed(data) in (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "f6",
        "9fff",
        "bfff",
        "5f4101ff",
        "7f6161ff",
        "c074323031332d30332d32315432303a30343a30305a",
        "f820",
        "fb3ff199999999999a",
    ],
)
def test_items_of_every_kind_are_well_formed(text):
    assert is_well_formed(bytes.fromhex(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ff",
        "1c",
        "f81f",
        "61ff",
        "5f6161ff",
        "5f5f4101ffff",
        "bf01ff",
        "9f",
        "1f",
        "df",
        "62c3",
        "9bffffffffffffffff",
    ],
)
def test_items_that_are_none_are_not(text):
    assert not is_well_formed(bytes.fromhex(text))


def test_nesting_has_an_end():
    assert is_well_formed(b"\x81" * 200 + b"\xf6")
    assert not is_well_formed(b"\x81" * 100_000 + b"\xf6")
