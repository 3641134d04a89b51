"""The sequence diagram: every arrow is drawn and told, nothing can break out of it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from orchestrator.arrows import Participant
from orchestrator.sequence import GUTTER, length, svg

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Told:
    ms: float
    source: str
    target: str
    label: str
    via: list[str] = field(default_factory=list)
    generation: int | None = None

    @property
    def at(self) -> datetime:
        return NOON + timedelta(milliseconds=self.ms)


WAKE = [
    Told(0, "User", "Gateway", "GET /"),
    Told(1.5, "Gateway", "Actor workflow", "wake"),
    Told(2, "Actor workflow", "Actor workflow", "allocate"),
    Told(3, "Actor workflow", "Runner", "StartActor", ["Runner workflow", "Runner WS"], 0),
    Told(2503, "Runner", "User", "response start", ["Runner WS", "Gateway"], 0),
]


def drawn(arrows) -> ElementTree.Element:
    return ElementTree.fromstring(svg(arrows, "an actor"))


def texts(picture) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


def test_every_arrow_has_its_words_its_label_and_the_time_since_the_one_before():
    picture = drawn(WAKE)
    arrows = [group for group in picture.iter(f"{SVG}g") if group.get("class") == "arrow"]
    titles = [group.find(f"{SVG}title").text for group in arrows]
    way = "Actor workflow → Runner workflow → Runner WS → Runner"
    assert titles[3] == f"{way}: StartActor, at 2026-03-01 12:00:00.003000 UTC, +1.0 ms"
    assert [group.findall(f"{SVG}text")[0].text for group in arrows] == [
        "+0.0 ms",
        "+1.5 ms",
        "+0.5 ms",
        "+1.0 ms",
        "+2.5 s",
    ]
    assert [group.findall(f"{SVG}text")[1].text for group in arrows] == [told.label for told in WAKE]


def test_only_those_who_take_part_are_shown_each_once():
    shown = texts(drawn(WAKE[:2]))
    assert [shown.count(who) for who in ("User", "Gateway", "Actor workflow", "Runner")] == [1, 1, 1, 0]


def test_each_hop_ends_in_a_tip():
    picture = drawn([WAKE[3]])
    [arrow] = [group for group in picture.iter(f"{SVG}g") if group.get("class") == "arrow"]
    assert len(arrow.findall(f"{SVG}line")) == len(arrow.findall(f"{SVG}path")) == 3


def test_every_participant_has_a_column():
    arrows = [Told(0, participant.value, participant.value, "x") for participant in Participant]
    assert {participant.value for participant in Participant} <= set(texts(drawn(arrows)))


def test_no_arrow_turns_back_on_its_way():
    for told in WAKE:
        lines = drawn([told]).findall(f"{SVG}g[@class='arrow']/{SVG}line")
        steps = {float(line.get("x2")) > float(line.get("x1")) for line in lines}
        assert len(steps) <= 1, told.label


def test_a_generation_is_announced_once():
    assert texts(drawn(WAKE)).count("generation 0") == 1


def test_the_picture_says_what_it_is():
    picture = drawn(WAKE)
    assert picture.get("role") == "img"
    assert picture.find(f"{SVG}title").text == "an actor"
    assert picture.find(f"{SVG}desc").text.startswith("5 arrows between User, Gateway,")
    assert drawn([]).find(f"{SVG}desc").text == "Nothing is recorded yet."


@pytest.mark.parametrize("label", ["</svg><script>alert(1)</script>", "a & b", '"quoted"', "x" * 500])
def test_no_label_breaks_or_leaves_the_picture(label):
    picture = drawn([Told(0, "User", "Gateway", label)])
    assert not list(picture.iter(f"{SVG}script"))
    shown = next(text for text in picture.iter(f"{SVG}text") if (text.text or "").startswith(label[:3]))
    assert float(shown.get("x")) >= GUTTER


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0.0 ms"), (0.9996, "999.6 ms"), (1, "1.0 s"), (119, "119.0 s"), (7200, "120 min")]
)
def test_lengths_of_time(seconds, told):
    assert length(seconds) == told
