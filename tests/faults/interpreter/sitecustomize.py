"""Gives every Python process that has this on its path a clock that can be set while it runs (`faults.clocks`).

It wraps what tells the time in Python; the monotonic clock, and whatever asks the kernel in C, stay as they are.
The offset, a double in seconds, is in a file of the process, which is read like memory: it costs next to nothing.
"""

import mmap
import os
import struct
import time

_DIRECTORY = os.environ.get("FAULT_CLOCKS")
_OFFSET = struct.Struct("d")
_time, _time_ns = time.time, time.time_ns


def _wrap(offset_of: mmap.mmap) -> None:
    import datetime

    import django.utils.timezone

    def offset() -> float:
        seconds: float = _OFFSET.unpack_from(offset_of)[0]
        return seconds

    def jumping_now() -> datetime.datetime:
        return datetime.datetime.fromtimestamp(_time() + offset(), datetime.UTC)

    time.time = lambda: _time() + offset()
    time.time_ns = lambda: _time_ns() + int(offset() * 1e9)
    django.utils.timezone.now = jumping_now


if _DIRECTORY is not None:
    with open(os.path.join(_DIRECTORY, str(os.getpid())), "w+b") as _file:
        _file.write(_OFFSET.pack(0.0))
        _file.flush()
        _wrap(mmap.mmap(_file.fileno(), _OFFSET.size))
