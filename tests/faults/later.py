"""python -m tests.faults.later manage.py …, or celery …: a process as a later release might be.

What it sends has in it what the present release does not know: fields and kinds of signals, arguments of tasks,
messages and frames on the bus. Rows it leaves as they are: migrations are another matter.
"""

import json
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from redis.client import Pipeline

from orchestrator.bus.bus import Bus
from orchestrator.celery import app
from orchestrator.workflow import mailbox
from orchestrator.workflow.mailbox import Letter
from orchestrator.workflow.outbox import Outbox

FIELD = {"later": {"since": [1, "two"]}}
SIGNAL = {"t": "of a later release", "fact": 1} | FIELD
EVERY = 5
"""Every so many letters and messages one more is sent, of a kind that nobody knows."""

_append_known, _send_task = mailbox._append, app.send_task
_bus_publish, _outbox_publish = Bus.publish, Outbox.publish
_count = 0


def _its_turn() -> bool:
    global _count
    _count += 1
    return _count % EVERY == 0


def _append(pipeline: Pipeline, letter: Letter, *, offer: bool = False) -> None:
    signal = letter.signal | FIELD
    if "report" in signal:
        signal["report"] = signal["report"] | FIELD
    _append_known(pipeline, Letter(letter.workflow, letter.key, signal), offer=offer)
    if _its_turn():
        _append_known(pipeline, Letter(letter.workflow, letter.key, SIGNAL))


def _send(name: str, args: Sequence[Any] = (), **options: Any) -> Any:
    kwargs = dict(options.pop("kwargs", None) or {}) | FIELD
    return _send_task(name, args=args, kwargs=kwargs, **options)


def _strange(channel: str, payload: bytes) -> tuple[bytes, bytes | None]:
    """Return a payload with what is new in it, and perhaps one that is all new."""
    new: dict[str, bytes] = {
        "actor": json.dumps({"m": "of a later release"}).encode(),
        "runner": b"Z of a later release",
        "gateway": b"0" * 30 + bytes(12) + b"\xf0 of a later release",
    }
    kind = channel.partition(":")[0]
    if kind == "actor":
        payload = json.dumps(json.loads(payload) | FIELD).encode()
    if kind == "runner" and payload[:1] == b"A":
        payload = b"A" + json.dumps([[*event, FIELD] for event in json.loads(payload[1:])]).encode()
    return payload, new.get(kind) if _its_turn() else None


def _publish_on_bus(self: Bus, channel: str, payload: bytes) -> None:
    known, unknown = _strange(channel, payload)
    if unknown is not None:
        _bus_publish(self, channel, unknown)
    _bus_publish(self, channel, known)


def _publish_from_outbox(self: Outbox, channel: str, payload: bytes) -> None:
    known, unknown = _strange(channel, payload)
    if unknown is not None:
        _outbox_publish(self, channel, unknown)
    _outbox_publish(self, channel, known)


def main() -> None:
    """Be of a later release, then what the command line says."""
    mailbox._append = _append
    app.send_task = _send
    Bus.publish = _publish_on_bus  # type: ignore[method-assign]
    Outbox.publish = _publish_from_outbox  # type: ignore[method-assign]
    sys.argv = sys.argv[1:]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
