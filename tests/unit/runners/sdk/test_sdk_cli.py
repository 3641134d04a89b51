import sys
import types

import pytest

from runners.sdk import Actor, Registry
from runners.sdk.__main__ import Unusable, load, main


class Counter(Actor): ...


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = types.ModuleType("some_actors")
    made.actors = {"a": Counter}
    made.registry = Registry({"b": Counter})
    made.Counter = Counter
    made.number = 7
    made.wrong = {"c": dict}
    made.empty = {}
    monkeypatch.setitem(sys.modules, "some_actors", made)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("some_actors:actors", ("a",)),
        ("some_actors", ("a",)),
        ("some_actors:registry", ("b",)),
        ("some_actors:Counter", ("counter",)),
    ],
)
def test_actors_are_named_by_module_and_name(target, names):
    assert load(target).names == names


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:x", "no module 'no_such_module'"),
        ("some_actors:missing", "some_actors:missing is no Registry"),
        ("some_actors:number", "some_actors:number is no Registry"),
        ("some_actors:wrong", "'c' must be a subclass"),
    ],
)
def test_what_is_no_actors_is_named(target, words):
    with pytest.raises(Unusable, match=words):
        load(target)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["some_actors:empty"], "no actors"),
        (["some_actors", "--endpoint", "nonsense"], "absolute http"),
        (["no_such_module"], "no module"),
    ],
)
def test_a_command_line_that_cannot_be_is_refused_with_the_reason(arguments, words, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert words in capsys.readouterr().err
