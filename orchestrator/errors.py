"""The tree of errors a caller can meet. Each class fixes its code, its HTTP status and its message.

An error is raised in the core or a service and translated once, at an edge, by `body()` and the class
attributes: an HTTP answer with `status`, or a WebSocket close with `close_code` and `close_reason()`.
Codes and statuses are those of PROTOCOL §8.6.
"""

from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Something went wrong inside the engine."""

    group: ClassVar[str] = "core"
    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011

    def __init__(self, message: str | None = None, **metadata: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.metadata = metadata
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        """Return the JSON body of an HTTP answer: group, code, message, and metadata unless empty."""
        body: dict[str, Any] = {"group": self.group, "code": self.code, "message": self.message}
        return body | {"metadata": self.metadata} if self.metadata else body

    def close_reason(self, ray_id: str) -> str:
        """Return the reason of a WebSocket close, cut to the 123 bytes a close frame can carry."""
        return f"{self.group}.{self.code}#{ray_id}"[:123]


class BadRequest(OrchestratorError):
    """The request is malformed."""

    group, code, status = "api", "bad_request", 400


class PathNotFound(OrchestratorError):
    """There is nothing at this path."""

    group, code, status = "api", "not_found", 404


class MethodNotAllowed(OrchestratorError):
    """This path does not take this method."""

    group, code, status = "api", "method_not_allowed", 405


class BodyTooLarge(OrchestratorError):
    """The request's body is too large."""

    group, code, status = "guard", "invalid_request_body", 413


class Forbidden(OrchestratorError):
    """The token is missing or does not allow this."""

    group, code, status = "api", "forbidden", 403


class NamespaceNotFound(OrchestratorError):
    """There is no namespace of this name."""

    group, code, status = "namespace", "not_found", 400


class NamespaceNotUnique(OrchestratorError):
    """A namespace of this name exists already."""

    group, code, status = "namespace", "name_not_unique", 400


class NamespaceInvalid(OrchestratorError):
    """The namespace cannot be created with this name."""

    group, code, status = "namespace", "failed_to_create", 400


class TokenNotFound(OrchestratorError):
    """There is no such token."""

    group, code, status = "token", "not_found", 400


class DatacenterNotFound(OrchestratorError):
    """There is no datacenter of this name."""

    group, code, status = "datacenter", "not_found", 400


class StoreUnavailable(OrchestratorError):
    """A store of the engine does not answer just now; try again."""

    group, code, status = "core", "store_unavailable", 503


class BusUnavailable(OrchestratorError):
    """The link between this process and the others is down."""

    group, code, status = "core", "bus_unavailable", 503


class BusOverloaded(OrchestratorError):
    """Too much waits to be sent to other processes."""

    group, code, status = "core", "bus_overloaded", 503
