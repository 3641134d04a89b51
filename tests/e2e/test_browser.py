"""A web page of another origin talks to actors that sleep."""

import pytest

from tests.support.browser import report_of_page
from tests.support.stories import engines, sleeping_actor

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "postgresql-uvicorn")]


@pytest.mark.parametrize("endpoint", ["sdk"], indirect=True)
def test_a_page_calls_reads_listens_and_talks(cluster, pool, endpoint):
    names = ("called", "listenedTo", "talkedTo")
    actors = {name: sleeping_actor(cluster, endpoint, pool) for name in names}
    seen = report_of_page(**{name: f"{cluster.urls[1]}/gateway/{actor_id}" for name, actor_id in actors.items()})
    assert len(seen["call"].pop("ray")) == 30
    assert seen["call"] == {"status": 200, "body": '{"a":"é"}', "header": "1"}
    assert seen["callWithCredentials"]["status"] == 200
    assert seen["callWithCredentials"]["origin"].startswith("http://127.0.0.1:")
    assert seen["read"] == ["data: first\n\n", "data: last\n\n"]
    assert seen["listen"] == ["first", "last"]
    assert seen["beRefused"] == {"status": 404, "code": "not_found"}
    assert seen["talk"] == {
        "seen": ["said at once", "ä€𝄞", "", [0, 255]],
        "protocol": "rivet",
        "code": 1000,
        "reason": "actor.stopped",
    }
    assert seen["hangUp"] == {"code": 4001, "reason": "enough", "clean": True}
    assert seen["beTurnedAway"] == {"code": 1011, "reason": "actor.not_found"}
