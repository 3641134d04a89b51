"""The test vectors of PROTOCOL §10, read from the copy beside this file.

Three lines each: id and top-level type, the value as JSON, the bytes in hex. The value is built here without
any help of the codec, from the names alone.
"""

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runners.protocol import messages


@dataclass(frozen=True)
class Vector:
    id: str
    kind: str
    version: int
    message: Any
    frame: bytes


STRUCTS = {  # of the fields whose value does not name its type; the elements', where it is a list
    "checkpoint": "ActorCheckpoint",
    "lastCommandCheckpoints": "ActorCheckpoint",
    "lastEventCheckpoints": "ActorCheckpoint",
    "messageId": "MessageId",
    "config": "ActorConfig",
    "hibernatingRequests": "HibernatingRequest",
    "ToServerEvents": "EventWrapper",
    "ToClientCommands": "CommandWrapper",
}
STOP_CODES = {"Ok": messages.StopCode.OK, "Error": messages.StopCode.ERROR}
INTEGERS = ("index", "Ts", "Threshold", "Period", "limit")
TIMES = ("Ts", "Threshold", "Period")


def load() -> list[Vector]:
    """Return all vectors, each version's in order."""
    lines = Path(__file__).with_name("vectors.txt").read_text().splitlines()
    vectors = []
    for head, value, frame in zip(*[iter(lines)] * 3, strict=True):
        id, kind = head.split()
        message = build("", json.loads(value))
        vectors.append(Vector(id, kind, int(id[1]), message, bytes.fromhex(frame)))
    return vectors


def build(name: str, value: Any) -> Any:
    """Return what the JSON value of the field called `name` means."""
    match value:
        case {"tag": str(tag), "val": None}:
            return getattr(messages, tag)()
        case {"tag": str(tag), "val": list(items)}:
            return getattr(messages, tag)(build(tag, items))
        case {"tag": str(tag), "val": dict(parts)}:
            return struct(tag, parts)
        case {"$hex": str(digits)}:
            return bytes.fromhex(digits)
        case {"$map": pairs} if name == "prepopulateActorNames":
            return {actor: known["metadata"] for actor, known in pairs}
        case {"$map": pairs}:
            return dict(pairs)
        case list():
            return tuple(build(name, item) for item in value)
        case dict() if name == "metadata":
            return struct("KvMetadata" if "version" in value else "ProtocolMetadata", value)
        case dict():
            return struct(STRUCTS[name], value)
        case str() if name == "code":
            return STOP_CODES[value]
        case str() if name == "ts" or name.endswith(INTEGERS):
            return int(value)
    return value


def struct(type_name: str, parts: dict[str, Any]) -> Any:
    """Return the message of this name in the shape of version 7, whatever the version of its parts."""
    if type_name in ("EventWrapper", "CommandWrapper") and "generation" not in parts["checkpoint"]:
        inner = parts["inner"]
        body = dict(inner["val"])
        checkpoint = parts["checkpoint"] | {"generation": body.pop("generation")}
        body.pop("actorId", None)
        parts = {"checkpoint": checkpoint, "inner": {"tag": inner["tag"], "val": body or None}}
    older = {"ActorCheckpoint": {"generation": 0}}
    older["ProtocolMetadata"] = {"actorStopThreshold": 0, "serverlessDrainGracePeriod": None}
    parts = older.get(type_name, {}) | parts
    values = {snake(name): build(name, value) for name, value in parts.items()}
    cls = getattr(messages, type_name)
    assert {field.name for field in fields(cls)} == set(values)
    return cls(**values)


def snake(name: str) -> str:
    """Return a field's name in Python, with its unit where it is a time."""
    unit = "_ms" if name.endswith(TIMES) or name == "ts" else ""
    return re.sub("([A-Z])", lambda letter: "_" + letter[0].lower(), name) + unit
