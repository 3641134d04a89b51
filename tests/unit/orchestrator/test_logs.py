"""Log records as JSON."""

import json
import logging
import sys

from orchestrator import logs


def formatted(record: logging.LogRecord) -> dict:
    logs.RayFilter().filter(record)
    [line] = logs.JsonFormatter().format(record).splitlines()
    return json.loads(line)


def record(message: str, *arguments, **fields) -> logging.LogRecord:
    made = logging.getLogger("orchestrator").makeRecord("orchestrator", 30, "f", 1, message, arguments, None)
    vars(made).update(fields)
    return made


def test_a_record_is_one_object_with_its_own_fields():
    told = formatted(record("no %s\nat all", "answer", action="wake", actor_id="a", of=object))
    assert told.pop("at").endswith("+00:00")
    assert told == {
        "level": "WARNING",
        "logger": "orchestrator",
        "message": "no answer\nat all",
        "action": "wake",
        "actor_id": "a",
        "of": "<class 'object'>",
    }


def test_a_traceback_is_part_of_it():
    try:
        raise ValueError("boom")
    except ValueError:
        told = formatted(record("failed", exc_info=sys.exc_info()))
    assert told["exception"].splitlines()[-1] == "ValueError: boom"


def test_records_of_a_request_have_its_ray_id_unless_they_name_one():
    token = logs.ray_id.set("ray")
    try:
        assert formatted(record("x"))["ray_id"] == "ray"
        assert formatted(record("x", ray_id="other"))["ray_id"] == "other"
    finally:
        logs.ray_id.reset(token)
    assert "ray_id" not in formatted(record("x"))
