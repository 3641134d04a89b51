"""The simulator's numbers, added up at the end of a session."""

from collections import Counter
from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how much was simulated, whichever processes did it."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport) and "tests/simulation/" in report.nodeid
    ]
    numbers: Counter[str] = Counter()
    for report in reports:
        numbers.update(dict(report.user_properties).get("simulated", {}))
    if numbers:
        told = ", ".join(f"{count} {what}" for what, count in numbers.items())
        violations = sum(report.failed for report in reports)
        terminalreporter.write_line(f"simulated: {told}, {violations} violations")
