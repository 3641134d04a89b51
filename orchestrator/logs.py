"""Log records as JSON, and the ray id of the request they belong to."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

ray_id: ContextVar[str] = ContextVar("ray_id", default="")
"""The id of the request that is being served, which its answer carries as `x-rivet-ray-id`."""

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class RayFilter(logging.Filter):
    """Gives every record of a request its ray id."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass."""
        if (ray := ray_id.get()) and not hasattr(record, "ray_id"):
            record.ray_id = ray
        return True


class JsonFormatter(logging.Formatter):
    """One object a line: at (ISO 8601, UTC), level, logger, message, the record's own fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str, ensure_ascii=False, separators=(",", ":"))
