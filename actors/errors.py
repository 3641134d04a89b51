"""What callers of actors are told (PROTOCOL §8.6, API §3)."""

from orchestrator.errors import OrchestratorError


class ActorNotFound(OrchestratorError):
    """There is no such actor."""

    group, code, status = "actor", "not_found", 400


class KeyEmpty(OrchestratorError):
    """An actor's key must not be empty."""

    group, code, status = "actor", "empty_key", 400


class KeyTooLarge(OrchestratorError):
    """The actor's key is too long."""

    group, code, status = "actor", "key_too_large", 400


class KeyTaken(OrchestratorError):
    """A living actor of this name has this key."""

    group, code, status = "actor", "duplicate_key", 400


class InputTooLarge(OrchestratorError):
    """The actor's input is too long."""

    group, code, status = "actor", "input_too_large", 400


class PoolNotConfigured(OrchestratorError):
    """No pool of this name is configured."""

    group, code, status = "actor", "no_runner_config_configured", 400


class TooManyActorIds(OrchestratorError):
    """Too many actors were asked for at once."""

    group, code, status = "validation", "too_many_actor_ids", 400


class InvalidInput(OrchestratorError):
    """The parameters do not go together."""

    group, code, status = "validation", "invalid_input", 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.metadata = {"message": message}  # told there too


class DestructionUnconfirmed(OrchestratorError):
    """The actor could not be destroyed in time; it will be as soon as the engine can."""

    group, code, status = "actor", "destruction_unconfirmed", 503


class StorageRefused(OrchestratorError):
    """The actor's storage refuses this."""

    group, code, status = "actor", "kv_refused", 400


class StorageKeyNotFound(OrchestratorError):
    """The actor's storage has no such key."""

    group, code, status = "actor", "kv_key_not_found", 400
