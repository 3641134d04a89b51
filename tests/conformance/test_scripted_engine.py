"""Every kind of runner against an engine that does what the case says: what it should do, or is known to do."""

import asyncio
import itertools

import pytest
import pytest_asyncio

from tests.conformance.cases import CASES
from tests.conformance.stage import first_meeting
from tests.support.kinds import each_kind
from tests.support.scripted_engine import scripted_engine

pytestmark = [pytest.mark.asyncio(loop_scope="module"), each_kind(group="scripted")]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kind(request):
    return request.param


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(kind, tmp_path_factory):
    """A runner that is there for all cases but those it does not outlive."""
    async with scripted_engine() as engine:
        stage = await first_meeting(kind, engine, tmp_path_factory.mktemp(kind))
        yield stage
        await asyncio.to_thread(stage.app.kill)


async def see(stage, case):
    assert await case.probe(stage) == case.outcome(stage.kind), stage.app.output()[-4_000:]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.alone])
async def test_a_runner_does_what_an_engine_may_expect(shared, name):
    await see(shared, CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.alone])
async def test_a_runner_ends_as_it_should_and_only_then(kind, tmp_path, name):
    async with scripted_engine() as engine:
        stage = await first_meeting(kind, engine, tmp_path)
        try:
            await see(stage, CASES[name])
        finally:
            await asyncio.to_thread(stage.app.kill)
