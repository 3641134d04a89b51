"""Recorded arrows as JSON, as rows of text, and as a picture.

The picture is a sequence diagram in the language of Mermaid, with the participants of DESIGN §1.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from orchestrator.arrows import Participant
from orchestrator.models import TimelineEntry

_PLAIN = set(" _.,:/()?=@+*'!-→")


def entry_json(entry: TimelineEntry) -> dict[str, Any]:
    """Return an arrow as JSON; `at` is ISO 8601 text, and ids that do not apply are empty."""
    return {
        "at": entry.at.isoformat(),
        "source": entry.source,
        "target": entry.target,
        "via": entry.via,
        "label": entry.label,
        "generation": entry.generation,
        "runner_id": entry.runner_id,
        "connection_id": entry.connection_id,
        "data": entry.data,
    }


def table(entries: Sequence[TimelineEntry]) -> list[tuple[str, str, str, str, str]]:
    """Return rows of text: time, time since the row before, the way, the label, the generation."""
    rows = []
    before = entries[0].at if entries else None
    for entry in entries:
        passed_ms = (entry.at - (before or entry.at)).total_seconds() * 1000
        way = " → ".join([entry.source, *entry.via, entry.target])
        generation = "" if entry.generation is None else str(entry.generation)
        rows.append((_clock(entry.at), f"+{passed_ms:,.1f} ms", way, entry.label, generation))
        before = entry.at
    return rows


def mermaid(entries: Sequence[TimelineEntry]) -> str:
    """Return the source of a sequence diagram: an arrow for each hop, and a note where the generation changes."""
    lines = ["sequenceDiagram"]
    lines += [f"    participant {_alias(name)} as {_escaped(name)}" for name in Participant]
    generation = None
    for entry in entries:
        if entry.generation is not None and entry.generation != generation:
            generation = entry.generation
            lines.append(f"    Note over {_alias(Participant.ACTOR)}: generation {generation}")
        hops = [entry.source, *entry.via, entry.target]
        for source, target in pairwise(hops):
            lines.append(f"    {_alias(source)}->>{_alias(target)}: {_escaped(entry.label)}")
    return "\n".join(lines) + "\n"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}"


def _alias(participant: str) -> str:
    """Return a name of letters alone: some words of the language are no names, and blanks end one."""
    return "P" + "".join(character for character in participant.title() if character.isalnum())


def _escaped(text: str) -> str:
    """Write whatever could mean something to Mermaid, or to the page it is shown on, as an entity."""
    return (
        "".join(
            character if character.isalnum() or character in _PLAIN else f"#{ord(character)};"
            for character in text
        )
        or " "
    )
