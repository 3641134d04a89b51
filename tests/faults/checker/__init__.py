"""Decides whether a run kept DESIGN's invariants: a pure function of what was seen, written and logged.

`check` is the one entrance. A run in which hardly anything succeeded proves nothing, and fails.
"""

from collections.abc import Sequence

from tests.faults.checker.evidence import Evidence
from tests.faults.checker.lives import check_lives
from tests.faults.checker.operations import check_operations
from tests.faults.checker.rows import check_rows
from tests.faults.checker.sockets import check_sockets

__all__ = ["Evidence", "check"]


def check(evidence: Evidence) -> Sequence[str]:
    """Return the violations, each beginning with the invariant it breaks; none if all is well."""
    found: list[str] = []
    for part in (check_operations, check_sockets, check_lives, check_rows):
        found += part(evidence)
    return found
