"""Frames of one runner that mean nothing: counted and logged, and the socket stays (DESIGN §11)."""

import logging

from runners.errors import RunnerProtocolError

logger = logging.getLogger(__name__)


class Skipped:
    """What one connection was sent in vain. It gets one line in the log per ping, however much it is."""

    def __init__(self, runner_id: str) -> None:
        self._runner_id = runner_id
        self._total = 0
        self._untold = 0

    def note(self, error: RunnerProtocolError) -> None:
        """Take note of a frame. The first is logged at once, later ones by `report`."""
        self._total += 1
        if self._total == 1:
            self._log("frame skipped: %s", error.message)
        else:
            self._untold += 1
            self._last = error.message

    def report(self) -> None:
        """Log what has not been logged yet."""
        if self._untold:
            self._log("%d more frames skipped, the last: %s", self._untold, self._last)
            self._untold = 0

    def _log(self, text: str, *facts: object) -> None:
        extra = {"action": "frame_skipped", "runner_id": self._runner_id, "frames": self._total}
        logger.warning(text, *facts, extra=extra)
