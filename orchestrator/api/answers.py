"""Errors as HTTP answers, the same from an endpoint and from the middleware (API §1.2)."""

import json
import logging
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja.errors import ValidationError
from ninja.renderers import BaseRenderer

from orchestrator import failures
from orchestrator.errors import BadRequest, OrchestratorError, StoreUnavailable

logger = logging.getLogger(__name__)


class JsonRenderer(BaseRenderer):
    """Compact JSON in UTF-8."""

    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:
        """Return the bytes of a JSON value."""
        return to_json(data)


def to_json(value: Any) -> bytes:
    """Return a JSON value as compact UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def error_answer(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    """Return the answer for an error; one that is not in our tree is logged, and told as a store's or internal."""
    told = _tellable(error)
    if told.status == 500 or isinstance(told, StoreUnavailable):
        logger.error(
            "request failed",
            exc_info=error if isinstance(error, Exception) else None,
            extra={"action": "request_failed", "ray_id": getattr(request, "ray_id", ""), "path": request.path},
        )
    return HttpResponse(to_json(told.body()), status=told.status, content_type="application/json")


def _tellable(error: Exception | type[Exception]) -> OrchestratorError:
    if isinstance(error, ValidationError):
        problem = error.errors[0]
        where = ".".join(str(step) for step in problem["loc"][2:])
        return BadRequest(reason=f"{where}: {problem['msg']}" if where else str(problem["msg"]))
    return failures.told(error)
