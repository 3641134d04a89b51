"""A web page of another origin talks to an actor that sleeps."""

import pytest

from tests.support.browser import report_of_page
from tests.support.stories import engines, sleeping_actor

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "postgresql-uvicorn")]


@pytest.mark.parametrize("endpoint", ["sdk"], indirect=True)
def test_a_page_calls_reads_and_listens(cluster, pool, endpoint):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    seen = report_of_page(actor=f"{cluster.urls[1]}/gateway/{actor_id}")
    assert len(seen["call"].pop("ray")) == 30
    assert seen["call"] == {"status": 200, "body": '{"a":"é"}', "header": "1"}
    assert seen["callWithCredentials"]["status"] == 200
    assert seen["callWithCredentials"]["origin"].startswith("http://127.0.0.1:")
    assert seen["read"] == ["data: first\n\n", "data: last\n\n"]
    assert seen["listen"] == ["first", "last"]
    assert seen["beRefused"] == {"status": 404, "code": "not_found"}
