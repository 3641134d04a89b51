"""One request's line to its runner: its frames, numbered as the protocol wants it (PROTOCOL §5.1)."""

from collections.abc import Callable

from gateway.answers import Answers
from gateway.client import Client
from gateway.hub import Hub
from runners.protocol.messages import ToClientRequestAbort, ToClientTunnelMessageKind


class Line:
    """Open from the beginning; `close` it. What the runner sends goes to `answers`."""

    def __init__(
        self, hub: Hub, runner_id: str, answers: Answers, doubt: Callable[[bool], None] | None = None
    ) -> None:
        """`doubt` is as `Hub.attach` has it."""
        self._hub = hub
        self._runner_id = runner_id
        self._answers = answers
        self._index = 0
        self._request_id = hub.attach(runner_id, answers, doubt)

    def say_here(self, kind: ToClientTunnelMessageKind) -> bool:
        """Send a message if the runner's socket is in this process; if not, nothing has happened.

        Raises:
            TunnelOverloaded: the runner does not keep up.
        """
        if not self._hub.send_here(self._runner_id, self._frame(kind)):
            self._index -= 1
            return False
        return True

    async def say(self, kind: ToClientTunnelMessageKind, client: Client | None = None) -> None:
        """Send a message; while the runner is away, wait: as long as the client stays and nothing has failed.

        Raises:
            TunnelOverloaded, TunnelBroken: as `Hub.send`.
            ClientGone: the client did not wait.
        """
        frame = self._frame(kind)
        if self._hub.send_here(self._runner_id, frame):
            return
        sending = self._hub.send(
            self._runner_id, frame, lambda: not (self._answers.failure or self._answers.closed)
        )
        await (sending if client is None else client.while_connected(sending))

    def abort(self) -> None:
        """Tell the runner that nobody waits for its answer any more."""
        self._hub.send_and_forget(self._runner_id, self._frame(ToClientRequestAbort()))

    def close(self) -> None:
        """Listen no more."""
        self._hub.detach(self._request_id)

    def _frame(self, kind: ToClientTunnelMessageKind) -> bytes:
        frame = self._hub.frame(self._request_id, self._index, kind)
        self._index = (self._index + 1) % 2**16
        return frame
