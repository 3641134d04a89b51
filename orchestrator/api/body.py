"""What a request body may be: its content type and its length (API §1.1). Does no I/O."""

import re

from orchestrator.errors import BadRequest, BodyTooLarge

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_FORWARDED_BYTES = 20 * 1024 * 1024
"""A longer one is refused with the gateway's code."""

_JSON_TYPE = re.compile(r"application/(?:[^/;\s]+\+)?json", re.IGNORECASE)


def check_content_type(content_type: str) -> None:
    """Accept `application/json` and `application/*+json`, parameters aside; BadRequest for all else."""
    if not _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise BadRequest(reason="the content type must be application/json")


def check_length(body_bytes: int) -> None:
    """Accept a body of this length, or raise BodyTooLarge or BadRequest."""
    if body_bytes > MAX_FORWARDED_BYTES:
        raise BodyTooLarge(reason=f"length limit of {MAX_FORWARDED_BYTES} bytes exceeded")
    if body_bytes > MAX_BODY_BYTES:
        raise BadRequest(reason=f"length limit of {MAX_BODY_BYTES} bytes exceeded")
