"""Whether bytes are one well-formed CBOR item (RFC 8949, appendix C). Does no I/O, and builds nothing.

Decoding would run what the tags ask for, on data of a stranger; here only the shape matters.
"""

_BREAK = 0xFF
_DEPTH = 256
"""Deeper nesting counts as malformed: whoever decodes it would run out of stack."""
_STRINGS = (2, 3)
_ARRAY, _MAP, _TAG, _SIMPLE = 4, 5, 6, 7


def is_well_formed(data: bytes) -> bool:
    """Say whether the bytes are exactly one item. Text must be UTF-8."""
    try:
        return _item(data, 0, 0) == len(data)
    except (IndexError, UnicodeDecodeError, ValueError):
        return False


def _item(data: bytes, at: int, depth: int) -> int:
    """Return where the item ends that begins at `at`."""
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    major, argument, at = _head(data, at)
    if argument is None:
        return _until_break(data, at, major, depth)
    if major in _STRINGS:
        return _string(data, at, major, argument)
    if major in (_ARRAY, _MAP):
        for _ in range(argument * (2 if major == _MAP else 1)):
            at = _item(data, at, depth + 1)
    elif major == _TAG:
        at = _item(data, at, depth + 1)
    return at


def _head(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Return major type, argument (None: of indefinite length) and where the content begins."""
    major, info = data[at] >> 5, data[at] & 0x1F
    at += 1
    if info < 24:
        return major, info, at
    if info < 28:
        end = at + (1 << (info - 24))
        if end > len(data):
            raise IndexError
        argument = int.from_bytes(data[at:end])
        if major == _SIMPLE and info == 24 and argument < 32:
            raise ValueError("a simple value that must be shorter")
        return major, argument, end
    if info == 31 and major in (*_STRINGS, _ARRAY, _MAP):
        return major, None, at
    raise ValueError("reserved")


def _string(data: bytes, at: int, major: int, length: int) -> int:
    end = at + length
    if end > len(data):
        raise IndexError
    if major == 3:
        data[at:end].decode()
    return end


def _until_break(data: bytes, at: int, major: int, depth: int) -> int:
    count = 0
    while data[at] != _BREAK:
        if major in _STRINGS:
            part, length, at = _head(data, at)
            if part != major or length is None:
                raise ValueError("a string of something else")
            at = _string(data, at, major, length)
        else:
            at = _item(data, at, depth + 1)
        count += 1
    if major == _MAP and count % 2:
        raise ValueError("a key without a value")
    return at + 1
