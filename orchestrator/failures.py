"""What a caller is told of an error that is not one of ours."""

import redis
from django.db import InterfaceError, OperationalError

from orchestrator.errors import OrchestratorError, StoreUnavailable

_OF_A_STORE = (OperationalError, InterfaceError, redis.RedisError)


def told(error: Exception | type[Exception]) -> OrchestratorError:
    """Return what to answer: an error of ours as it is, a store that is away by name, all else as internal."""
    if isinstance(error, OrchestratorError):
        return error
    return StoreUnavailable() if isinstance(error, _OF_A_STORE) else OrchestratorError()
