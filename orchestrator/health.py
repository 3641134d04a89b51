"""Whether the engine can work: its database, Redis and a Celery worker are asked, not assumed."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import redis
from django.db import DatabaseError, connection

from orchestrator import VERSION
from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow import echo, sweep

logger = logging.getLogger(__name__)

OK = "ok"


@dataclass(frozen=True, slots=True)
class Health:
    """What each part said: `ok`, or what is wrong with it."""

    checks: dict[str, str]
    took_ms: float

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return all(said == OK for said in self.checks.values())

    @property
    def body(self) -> dict[str, Any]:
        """The body of `/health`; what is wrong is only told when something is."""
        return self.summary if self.ok else self.summary | {"checks": self.checks}

    @property
    def summary(self) -> dict[str, Any]:
        """How it is in all, which anybody may know."""
        return {"status": OK if self.ok else "error", "runtime": "engine", "version": VERSION}

    @property
    def problem(self) -> str | None:
        """What is wrong in one sentence, None if nothing is."""
        wrong = [f"{part}: {said}" for part, said in self.checks.items() if said != OK]
        return "; ".join(wrong) or None


def check_readiness() -> Health:
    """Ask every part and every queue; up to 2 s for each queue nobody serves and nobody asked a moment ago."""
    began = time.perf_counter()
    checks = {"database": _database(), "redis": _redis()}
    for queue in sweep.queues():
        checks[f"queue {queue}"] = _queue(queue) if checks["redis"] == OK else "unknown without redis"
    return Health(checks, took_ms=(time.perf_counter() - began) * 1_000)


def check() -> Health:
    """Ask every part; cheap while the worker's last echo is fresh, else up to 2 s."""
    began = time.perf_counter()
    checks = {"database": _database(), "redis": _redis()}
    checks["worker"] = _queue(app.conf.task_default_queue) if checks["redis"] == OK else "unknown without redis"
    return Health(checks, took_ms=(time.perf_counter() - began) * 1_000)


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        logger.warning("database is away", exc_info=True, extra={"action": "health"})
        return "away"
    return OK


def _redis() -> str:
    try:
        get_redis().ping()
    except redis.RedisError:
        logger.warning("redis is away", exc_info=True, extra={"action": "health"})
        return "away"
    return OK


def _queue(name: str) -> str:
    try:
        served = echo.is_served(name)
    except redis.RedisError:
        return "unknown without redis"
    return OK if served else "no echo"
