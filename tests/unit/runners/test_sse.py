"""Server-sent events, however they are cut into pieces."""

import pytest
from hypothesis import given, strategies as st

from runners.sse import MAX_EVENT_BYTES, EventStream, EventTooLong, ServerEvent

EXAMPLES = [
    (b"data: a\n\n", [("message", "a")]),
    (b"data:a\ndata: b\n\n", [("message", "a\nb")]),
    (b"event: ping\ndata:\n\ndata: x\n\n", [("ping", ""), ("message", "x")]),
    (b": a comment\n\nid: 7\nretry: 1\nunknown\ndata: x\n\n", [("message", "x")]),
    (b"event: lonely\n\ndata: x\n\n", [("message", "x")]),
    (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("message", "a"), ("message", "b"), ("message", "c")]),
    ("data: ä€\n\n".encode(), [("message", "ä€")]),
    (b"data: \xff\n\n", [("message", "\ufffd")]),
    (b"data: unfinished\n", []),
]


@pytest.mark.parametrize(("stream", "events"), EXAMPLES)
def test_events_are_read(stream, events):
    assert EventStream().feed(stream) == [ServerEvent(*event) for event in events]


@given(st.sampled_from(EXAMPLES), st.data())
def test_pieces_make_no_difference(example, data):
    stream, events = example
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader, read = EventStream(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.feed(stream[start:end])
    assert read == [ServerEvent(*event) for event in events]


def _feed_often(reader, piece):
    for _ in range(MAX_EVENT_BYTES // len(piece) + 1):
        assert reader.feed(piece) == []


@pytest.mark.parametrize(
    "piece",
    [b"x" * 1_000, b"data: x\n" * 100, b"event: x\n" * 100, b"data\n"],
    ids=["line", "data", "event", "empty"],
)
def test_what_does_not_end_is_given_up(piece):
    with pytest.raises(EventTooLong):
        _feed_often(EventStream(), piece)


def test_comments_may_go_on_forever():
    reader = EventStream()
    for _ in range(MAX_EVENT_BYTES // 10):
        assert reader.feed(b": still here\n") == []
