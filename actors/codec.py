"""Signals of the actor workflow as JSON objects, for the mailbox and the timeline.

`t` names the signal; moments are ISO 8601 text. A report of a runner is nested under `report`, as the runner's
socket makes it (`runners/connection.py`); its alarm is in milliseconds since the epoch, as on the wire.
"""

from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from actors import life
from actors.life import FailureKind, FromRunner, Report, Signal

_SIGNALS: dict[str, type[Signal]] = {
    "start": life.Start,
    "wake": life.Wake,
    "slot_free": life.SlotFree,
    "allocated": life.Allocated,
    "no_slot": life.NoSlot,
    "from_runner": life.FromRunner,
    "runner_lost": life.RunnerLost,
    "missing": life.Missing,
    "runner_draining": life.RunnerDraining,
    "sleep": life.Sleep,
    "reschedule": life.Reschedule,
    "destroy": life.Destroy,
    "tick": life.Tick,
}
_REPORTS: dict[str, type[Report]] = {
    "running": life.RunningReport,
    "sleep_intent": life.SleepIntent,
    "stop_intent": life.StopIntent,
    "stopped": life.StoppedReport,
    "alarm": life.AlarmReport,
}
_NAMES: dict[type, str] = {kind: name for table in (_SIGNALS, _REPORTS) for name, kind in table.items()}
_FIELDS = {kind: {field.name for field in fields(kind)} | {"at_ms"} for kind in _NAMES}
_MOMENTS = {"seen_at", "until", "heard_at"}
_LATER = {"heard_at", "after"}  # left out where there is none
_LAST_MS = 253_402_300_799_000  # the year 9999; a later alarm is as good as none sooner


def encode_signal(signal: Signal | Report) -> dict[str, Any]:
    """Return the signal as a JSON object."""
    encoded: dict[str, Any] = {"t": _NAMES[type(signal)]}
    if isinstance(signal, life.AlarmReport):
        return encoded | {"at_ms": None if signal.at is None else round(signal.at.timestamp() * 1000)}
    for field in fields(signal):
        value = getattr(signal, field.name)
        if field.name in _LATER and value is None:
            continue
        if isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, Enum):
            value = value.value
        elif field.name == "report":
            value = encode_signal(value)
        encoded[field.name] = value
    return encoded


def knows(encoded: dict[str, Any]) -> bool:
    """Say whether the signal is of a kind that this release has."""
    report = encoded.get("report")
    return encoded["t"] in _SIGNALS and (report is None or report["t"] in _REPORTS)


def decode_signal(encoded: dict[str, Any]) -> Signal:
    """Return the signal of a JSON object made by `encode_signal`; KeyError or TypeError for anything else.

    What a later release has added to it is passed over.
    """
    kind = _SIGNALS[encoded["t"]]
    arguments = _arguments(kind, encoded)
    if kind is FromRunner:
        report = encoded["report"]
        of_report = _REPORTS[report["t"]]
        arguments["report"] = of_report(**_arguments(of_report, report))
    return kind(**arguments)


def _arguments(kind: type[Signal | Report], encoded: dict[str, Any]) -> dict[str, Any]:
    known = _FIELDS[kind]
    arguments = {name: value for name, value in encoded.items() if name in known}
    for name in _MOMENTS & arguments.keys():
        if arguments[name] is not None:
            arguments[name] = datetime.fromisoformat(arguments[name])
    if "at_ms" in arguments:
        at_ms = arguments.pop("at_ms")
        bounded = None if at_ms is None else min(max(at_ms, 0), _LAST_MS)
        arguments["at"] = None if bounded is None else datetime.fromtimestamp(bounded / 1000, UTC)
    if "kind" in arguments:
        arguments["kind"] = FailureKind(arguments["kind"])
    return arguments
