"""What can go wrong for somebody who writes actors.

SdkError
├── RunnerStopped    the runner ended before what was waited for
├── KvError          the engine refused a call to the store, or cannot be asked
│   └── KvTimeout    it did not answer in time
├── OwnershipLost    the actor is another life's by now
├── RequestTooLarge  the body is larger than what is read of it
└── WebSocketClosed  the client's socket is closed
"""


class SdkError(Exception):
    """The root of the SDK's errors."""


class RunnerStopped(SdkError):
    """The runner has stopped."""

    def __init__(self) -> None:
        super().__init__("the runner has stopped")


class KvError(SdkError):
    """A call to the actor's store failed; the text is the engine's (PROTOCOL §6) or says why it was not asked."""


class KvTimeout(KvError):
    """The engine did not answer a call to the actor's store in time; whether it took effect is unknown."""


class OwnershipLost(SdkError):
    """The actor is no longer this life's: it sleeps, is destroyed, or lives elsewhere or in a later life."""


class RequestTooLarge(SdkError):
    """The body of a request is too large to be kept; left to itself it answers the request with 413."""


class WebSocketClosed(SdkError):
    """The client's WebSocket is closed; `code` and `reason` are those of the closing side."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the WebSocket is closed: {code} {reason}".rstrip())
