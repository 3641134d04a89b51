"""BARE, the encoding of the runner protocol (PROTOCOL §1.1): its types as pairs of a reader and a writer.

A reader takes the frame and the offset to read at, and returns the value and the offset behind it. A writer
appends a value's bytes to a list that is joined once. `Codec` pairs the two; small functions build the codec
of a struct, a list or a union from those of its parts.

Readers are as strict as the strictest peer (PROTOCOL §1.2) and raise RunnerProtocolError. A frame that ends
early may also show as IndexError or struct.error, so that no reader has to look at the length before each
byte. A value that has no place on the wire makes a writer raise whatever Python does: struct.error,
TypeError, ValueError or AttributeError. `codec` translates all of these in one place.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runners.errors import RunnerProtocolError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
D = TypeVar("D", bound="DataclassInstance")
Reader = Callable[[bytes, int], tuple[T, int]]
Writer = Callable[[T, list[bytes]], None]


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """How one type is read and written, and the bytes its shortest value takes (to judge a count by)."""

    read: Reader[T]
    write: Writer[T]
    least: int


@dataclass(frozen=True, slots=True)
class Member(Codec[T]):
    """The codec of a dataclass, which can stand in a union."""

    cls: type[T]


def invalid(what: str, at: int) -> RunnerProtocolError:
    """Return the error that says what is wrong with a frame and at which byte."""
    return RunnerProtocolError(f"{what} at byte {at}", at=at)


# Numbers

_SIZES = [bytes([size]) for size in range(0x80)]
"""The uints of one byte. Nearly every length and count is one."""


def read_uint(frame: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number: at most 64 bits, in its shortest form only."""
    value = frame[at]
    if value < 0x80:
        return value, at + 1
    start = at
    value &= 0x7F
    for shift in range(7, 70, 7):
        at += 1
        byte = frame[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0:
                raise invalid("uint not in its shortest form", start)
            if value >> 64:
                break
            return value, at + 1
    raise invalid("uint of more than 64 bits", start)


def pack_uint(value: int) -> bytes:
    """Return the unsigned LEB128 bytes of a length or count."""
    if value < 0x80:
        return _SIZES[value]
    packed = bytearray()
    while value >= 0x80:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def _fixed(form: str) -> Codec[Any]:
    shape = struct.Struct(form)
    unpack, pack = shape.unpack_from, shape.pack

    def read(frame: bytes, at: int) -> tuple[Any, int]:
        return unpack(frame, at)[0], at + shape.size

    def write(value: Any, out: list[bytes]) -> None:
        out.append(pack(value))

    return Codec(read, write, shape.size)


U16: Codec[int] = _fixed("<H")
U32: Codec[int] = _fixed("<I")
U64: Codec[int] = _fixed("<Q")
I64: Codec[int] = _fixed("<q")


def read_bool(frame: bytes, at: int) -> tuple[bool, int]:
    """Read one byte, 0 or 1."""
    byte = frame[at]
    if byte > 1:
        raise invalid("bool neither 0 nor 1", at)
    return byte == 1, at + 1


def write_bool(value: bool, out: list[bytes]) -> None:
    """Write one byte, 0 or 1."""
    if value is not True and value is not False:
        raise TypeError("a bool is required")
    out.append(_SIZES[value])


BOOL = Codec(read_bool, write_bool, 1)

# Text and data


def read_data(frame: bytes, at: int) -> tuple[bytes, int]:
    """Read a length and that many bytes."""
    size, start = frame[at], at + 1
    if size >= 0x80:
        size, start = read_uint(frame, at)
    end = start + size
    if end > len(frame):
        raise invalid("data longer than the frame", at)
    return frame[start:end], end


def write_data(value: bytes, out: list[bytes]) -> None:
    """Write a length and the bytes."""
    out += (pack_uint(len(value)), value)


def read_text(frame: bytes, at: int) -> tuple[str, int]:
    """Read a length and that many bytes of UTF-8."""
    size, start = frame[at], at + 1
    if size >= 0x80:
        size, start = read_uint(frame, at)
    end = start + size
    if end > len(frame):
        raise invalid("text longer than the frame", at)
    try:
        return frame[start:end].decode(), end
    except UnicodeDecodeError:
        raise invalid("text not in UTF-8", at) from None


def write_text(value: str, out: list[bytes]) -> None:
    """Write a length and the text in UTF-8."""
    data = value.encode()
    out += (pack_uint(len(data)), data)


def write_id(value: bytes, out: list[bytes]) -> None:
    """Write the 4 bytes of a gateway's or a request's id."""
    if len(value) != 4:  # struct would pad it or cut it in silence
        raise ValueError("an id is not 4 bytes")
    out.append(value)


DATA = Codec(read_data, write_data, 1)
ID: Codec[bytes] = Codec(_fixed("4s").read, write_id, 4)
TEXT = Codec(read_text, write_text, 1)


def read_text_map(frame: bytes, at: int) -> tuple[dict[str, str], int]:
    """Read a map of texts, such as headers: `read_text` unrolled, because every request passes here."""
    begin = start = at
    count = frame[at]
    if count < 0x80:
        at += 1
    else:
        count, at = read_count(frame, at, least=2, most=MAX_ITEMS)
    texts = {}
    try:
        for _ in range(count):
            size, start = frame[at], at + 1
            if size >= 0x80:
                size, start = read_uint(frame, at)
            at = start + size
            name = frame[start:at].decode()
            size, start = frame[at], at + 1
            if size >= 0x80:
                size, start = read_uint(frame, at)
            at = start + size
            texts[name] = frame[start:at].decode()
    except UnicodeDecodeError:
        if at <= len(frame):
            raise invalid("text not in UTF-8", start) from None
    if at > len(frame):
        raise invalid("text longer than the frame", start)
    if len(texts) != count:
        raise invalid("map with a key twice", begin)
    return texts, at


_SIZE_CHARS = [pack_uint(size).decode("latin-1") for size in range(0x400)]
"""The uints of most texts' lengths, a character for each byte."""


def write_texts(texts: tuple[str, ...], mapped: Mapping[str, str], out: list[bytes]) -> None:
    """Write some texts and then a map of texts, such as a request's path and headers.

    As long as all is ASCII the whole is put together as one text, a character for each byte, and encoded in
    one go: half the time of going text by text.
    """
    char = _SIZE_CHARS
    try:
        parts = [part for text in texts for part in (char[len(text)], text)]
        parts += (char[len(mapped)], "")
        for name, text in mapped.items():
            parts += (char[len(name)], name, char[len(text)], text)
    except IndexError:  # a text too long for the table
        pass
    else:
        whole = "".join(parts)
        if whole.isascii() or "".join(parts[1::2]).isascii():  # without the lengths from 128 up
            out.append(whole.encode("latin-1"))
            return
    for text in texts:
        write_text(text, out)
    out.append(pack_uint(len(mapped)))
    for name, text in mapped.items():
        write_text(name, out)
        write_text(text, out)


def write_text_map(mapped: Mapping[str, str], out: list[bytes]) -> None:
    """Write a map of texts."""
    write_texts((), mapped, out)


TEXT_MAP = Codec(read_text_map, write_text_map, 1)

# What is made of parts


MAX_ITEMS = 100_000
"""The longest list or map a runner may send: even one of nothing but empty items takes memory and time."""


def read_count(frame: bytes, at: int, least: int, most: int | None = None) -> tuple[int, int]:
    """Read how many items follow of at least `least` bytes each; refuse more than `most`, or than the frame holds.

    Without this an announced count could make us allocate or loop far beyond the frame's size.
    """
    count, start = read_uint(frame, at)
    if count * least > len(frame) - start:
        raise invalid("count of more items than the frame holds", at)
    if most is not None and count > most:
        raise invalid(f"count of more than {most} items", at)
    return count, start


def optional(item: Codec[T]) -> Codec[T | None]:
    """Return the codec of a value or None."""
    read_item, write_item = item.read, item.write

    def read(frame: bytes, at: int) -> tuple[T | None, int]:
        flag = frame[at]
        if flag == 0:
            return None, at + 1
        if flag == 1:
            return read_item(frame, at + 1)
        raise invalid("option neither 0 nor 1", at)

    def write(value: T | None, out: list[bytes]) -> None:
        if value is None:
            out.append(b"\x00")
        else:
            out.append(b"\x01")
            write_item(value, out)

    return Codec(read, write, 1)


def sequence(item: Codec[T], most: int | None = None) -> Codec[Sequence[T]]:
    """Return the codec of a list, read as a tuple of at most `most` items and written from any sequence."""
    read_item, write_item, least = item.read, item.write, item.least

    def read(frame: bytes, at: int) -> tuple[tuple[T, ...], int]:
        count, at = read_count(frame, at, least, most)
        items = []
        for _ in range(count):
            value, at = read_item(frame, at)
            items.append(value)
        return tuple(items), at

    def write(values: Sequence[T], out: list[bytes]) -> None:
        out.append(pack_uint(len(values)))
        for value in values:
            write_item(value, out)

    return Codec(read, write, 1)


def absent(value: T) -> Codec[T]:
    """Return the codec of a field an older version lacks: no bytes, always read as `value`."""
    return Codec(lambda frame, at: (value, at), lambda _, out: None, 0)


def record(cls: type[D], *parts: Codec[Any]) -> Member[D]:
    """Return the codec of a struct, a dataclass whose fields are coded by `parts` in order."""
    readers = [part.read for part in parts]
    writers = [(attrgetter(field.name), part.write) for field, part in zip(fields(cls), parts, strict=True)]

    def read(frame: bytes, at: int) -> tuple[D, int]:
        values = []
        for read_part in readers:
            value, at = read_part(frame, at)
            values.append(value)
        return cls(*values), at

    def write(value: D, out: list[bytes]) -> None:
        for get, write_part in writers:
            write_part(get(value), out)

    return Member(read, write, sum(part.least for part in parts), cls)


def union(name: str, *members: Member[Any]) -> Codec[Any]:
    """Return the codec of a union whose tags count its members from 0; `name` is for error messages."""
    readers = [member.read for member in members]
    writers = {member.cls: (_SIZES[tag], member.write) for tag, member in enumerate(members)}

    def read(frame: bytes, at: int) -> tuple[Any, int]:
        tag = frame[at]
        if tag >= len(readers):
            raise invalid(f"unknown tag of {name}", at)
        return readers[tag](frame, at + 1)

    def write(value: Any, out: list[bytes]) -> None:
        member = writers.get(type(value))
        if member is None:
            raise RunnerProtocolError(f"{type(value).__name__} is no {name} in this version")
        out.append(member[0])
        member[1](value, out)

    return Codec(read, write, 1 + min(member.least for member in members))
