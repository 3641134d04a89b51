"""Signals of the actor workflow as JSON objects, for the mailbox and the timeline.

`t` names the signal; moments are ISO 8601 text. A report of a runner is nested under `report`.
"""

from dataclasses import fields
from datetime import datetime
from enum import Enum
from typing import Any

from actors import lifecycle
from actors.lifecycle import FailureKind, FromRunner, Report, Signal

_SIGNALS: dict[str, type[Signal]] = {
    "start": lifecycle.Start,
    "wake": lifecycle.Wake,
    "slot_free": lifecycle.SlotFree,
    "allocated": lifecycle.Allocated,
    "no_slot": lifecycle.NoSlot,
    "from_runner": lifecycle.FromRunner,
    "runner_lost": lifecycle.RunnerLost,
    "missing": lifecycle.Missing,
    "runner_draining": lifecycle.RunnerDraining,
    "sleep": lifecycle.Sleep,
    "reschedule": lifecycle.Reschedule,
    "destroy": lifecycle.Destroy,
    "tick": lifecycle.Tick,
}
_REPORTS: dict[str, type[Report]] = {
    "running": lifecycle.RunningReport,
    "sleep_intent": lifecycle.SleepIntent,
    "stop_intent": lifecycle.StopIntent,
    "stopped": lifecycle.StoppedReport,
    "alarm": lifecycle.AlarmReport,
}
_NAMES: dict[type, str] = {kind: name for table in (_SIGNALS, _REPORTS) for name, kind in table.items()}
_MOMENTS = {"seen_at", "until", "at"}


def encode_signal(signal: Signal | Report) -> dict[str, Any]:
    """Return the signal as a JSON object."""
    encoded: dict[str, Any] = {"t": _NAMES[type(signal)]}
    for field in fields(signal):
        value = getattr(signal, field.name)
        if isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, Enum):
            value = value.value
        elif field.name == "report":
            value = encode_signal(value)
        encoded[field.name] = value
    return encoded


def decode_signal(encoded: dict[str, Any]) -> Signal:
    """Return the signal of a JSON object made by `encode_signal`; KeyError or TypeError for anything else."""
    arguments = _arguments(encoded)
    kind = _SIGNALS[encoded["t"]]
    if kind is FromRunner:
        report = arguments["report"]
        arguments["report"] = _REPORTS[report["t"]](**_arguments(report))
    return kind(**arguments)


def _arguments(encoded: dict[str, Any]) -> dict[str, Any]:
    arguments = {name: value for name, value in encoded.items() if name != "t"}
    for name in _MOMENTS & arguments.keys():
        if arguments[name] is not None:
            arguments[name] = datetime.fromisoformat(arguments[name])
    if "kind" in arguments:
        arguments["kind"] = FailureKind(arguments["kind"])
    return arguments
