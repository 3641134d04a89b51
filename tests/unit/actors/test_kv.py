import pytest
from hypothesis import given, strategies as st

from actors import kv
from actors.errors import StorageRefused
from actors.kv import Span
from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDropRequest,
    KvGetRequest,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListRangeQuery,
    KvListRequest,
    KvPutRequest,
)

KEYS = st.lists(st.sampled_from([0, 1, 0x61, 0xFE, 0xFF]), max_size=4).map(bytes)
LONGEST, TOO_LONG = b"k" * 2046, b"k" * 2047


def listing(query):
    return KvListRequest(query, None, None)


def put(*entries):
    return KvPutRequest([key for key, _ in entries], [value for _, value in entries])


@given(prefix=KEYS, key=KEYS)
def test_a_key_is_in_the_span_of_a_prefix_exactly_if_it_begins_with_it(prefix, key):
    assert contains(kv.prefixed(prefix), key) == key.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"", None),
        (b"a", b"b"),
        (b"a\xfe", b"a\xff"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"\x00", b"\x01"),
        (b"\xff", None),
        (b"\xff\xff", None),
    ],
)
def test_the_span_of_a_prefix_ends_before_its_successor_and_one_of_highest_bytes_has_none(prefix, end):
    assert kv.prefixed(prefix) == Span(prefix, end)


@pytest.mark.parametrize(
    ("query", "span"),
    [
        (KvListAllQuery(), Span(b"")),
        (KvListPrefixQuery(b"p"), Span(b"p", b"q")),
        (KvListRangeQuery(b"a", b"b", exclusive=True), Span(b"a", b"b")),
        (KvListRangeQuery(b"a", b"b", exclusive=False), Span(b"a", b"b", closed=True)),
    ],
)
def test_a_list_asks_for_a_span(query, span):
    assert kv.selected(query) == span


@pytest.mark.parametrize(
    "request_",
    [
        KvGetRequest([]),
        KvGetRequest([b""] * 128),
        KvGetRequest([LONGEST]),
        KvDeleteRequest([LONGEST] * 128),
        KvDropRequest(),
        KvDeleteRangeRequest(LONGEST, LONGEST),
        listing(KvListAllQuery()),
        listing(KvListPrefixQuery(LONGEST)),
        listing(KvListRangeQuery(LONGEST, LONGEST, exclusive=False)),
        put(),
        put(*[(b"", b"")] * 128),
        put(*[(b"k" * 8, b"v" * 131_072)] * 7, (b"k" * 10, b"v" * (999_424 - 7 * (131_072 + 10) - 12))),
    ],
)
def test_what_is_at_its_limit_is_taken(request_):
    kv.check(request_)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (KvGetRequest([b""] * 129), "a maximum of 128 keys is allowed"),
        (KvGetRequest([TOO_LONG] * 129), "a maximum of 128 keys is allowed"),
        (KvGetRequest([b"k", TOO_LONG]), "key is too long (max 2048 bytes)"),
        (KvDeleteRequest([b""] * 129), "a maximum of 128 keys is allowed"),
        (KvDeleteRequest([TOO_LONG]), "key is too long (max 2048 bytes)"),
        (listing(KvListPrefixQuery(TOO_LONG)), "prefix key is too long (max 2048 bytes)"),
        (listing(KvListRangeQuery(TOO_LONG, b"", exclusive=True)), "start key is too long (max 2048 bytes)"),
        (listing(KvListRangeQuery(b"", TOO_LONG, exclusive=True)), "end key is too long (max 2048 bytes)"),
        (KvDeleteRangeRequest(TOO_LONG, TOO_LONG), "start key is too long (max 2048 bytes)"),
        (KvDeleteRangeRequest(b"", TOO_LONG), "end key is too long (max 2048 bytes)"),
        (KvPutRequest([b"k"] * 129, []), "Keys list length != values list length"),
        (put(*[(b"", b"v" * 131_073)] * 129), "A maximum of 128 key-value entries is allowed"),
        (
            put(*[(b"k" * 8, b"v" * 131_072)] * 7, (b"k" * 10, b"v" * (999_424 - 7 * (131_072 + 10) - 11))),
            "total payload is too large (max 976 KiB)",
        ),
    ],
)
def test_what_is_beyond_a_limit_is_refused_with_its_text(request_, text):
    with pytest.raises(StorageRefused) as refused:
        kv.check(request_)
    assert refused.value.message == text


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({TOO_LONG: b"v" * 131_073}, "key is too long (max 2048 bytes)"),
        ({b"k": b"v" * 131_073}, "value is too large (max 128 KiB)"),
    ],
)
def test_entries_are_refused_for_a_key_and_then_for_a_value(entries, text):
    kv.check_entries({LONGEST: b"v" * 131_072})
    with pytest.raises(StorageRefused) as refused:
        kv.check_entries(entries)
    assert refused.value.message == text


def test_an_entry_counts_for_its_key_its_value_and_two_bytes():
    assert kv.stored_bytes({b"": b"", b"key": b"value"}) == 2 + 3 + 2 + 5


@pytest.mark.parametrize(("used", "added"), [(90, 10), (0, 0), (100, 0), (500, 0), (500, -1)])
def test_storage_may_grow_to_its_quota_and_shrink_from_beyond(used, added):
    kv.check_quota(used, added, quota_bytes=100)


@pytest.mark.parametrize(("used", "added", "left"), [(90, 11, 10), (100, 1, 0), (500, 1, 0)])
def test_beyond_the_quota_it_is_said_what_is_left_and_what_is_needed(used, added, left):
    with pytest.raises(StorageRefused) as refused:
        kv.check_quota(used, added, quota_bytes=100)
    text = f"not enough space left in storage: {left} bytes remaining, {added} needed"
    assert refused.value.message == text


@pytest.mark.parametrize(
    ("limit", "rows"), [(None, 16_384), (0, 0), (7, 7), (20_000, 20_000), (2**64 - 1, 2**31 - 1)]
)
def test_a_list_without_a_limit_has_one(limit, rows):
    assert kv.row_limit(limit) == rows


def contains(span, key):
    if key < span.first:
        return False
    return span.end is None or key < span.end or (span.closed and key == span.end)


# Keys, for people


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"", ""),
        (b"a key/1", "a key/1"),
        ("é𝄞".encode(), "é𝄞"),
        (b"\x00\xff\n", r"\x00\xff\x0a"),
        (b"back\\slash", r"back\\slash"),
        ("\u00a0\u200b".encode(), r"\xc2\xa0\xe2\x80\x8b"),
    ],
)
def test_a_key_is_written_for_people_and_read_again(key, text):
    assert kv.key_text(key) == text
    assert kv.key_of_text(text) == key


@given(st.binary())
def test_every_key_is_read_as_it_was_written(key):
    assert kv.key_of_text(kv.key_text(key)) == key


@pytest.mark.parametrize(("text", "key"), [("\\", b"\\"), ("\\x", b"\\x"), ("\\xg0", b"\\xg0"), ("a\\b", b"a\\b")])
def test_a_backslash_that_begins_nothing_stands_for_itself(text, key):
    assert kv.key_of_text(text) == key
