"""What the documentation says of each implementation is what the kit asserts."""

from pathlib import Path

from tests.conformance.cases import CASES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def test_the_page_on_the_protocol_shows_every_case():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [row for row in rows if row in {case.row() for case in CASES.values()}] == [
        case.row() for case in CASES.values()
    ]
