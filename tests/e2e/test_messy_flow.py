"""The messy flow in one continuous run: sleep twice, call while it stops, lose the runner, sleep (DESIGN §1.2)."""

import pytest

from tests.support.cluster import Cluster
from tests.support.endpoint import Endpoint
from tests.support.flows import GIVEN_BACK, LOST, laid_out, lead_messy_flow, messy, recorded_as
from tests.support.stories import engines

pytestmark = pytest.mark.e2e

ENDINGS = {"node-2.2.1": LOST, "sdk": GIVEN_BACK}  # our SDK keeps to the grace, and an npm client does not


@engines("sqlite-daphne")
@pytest.mark.parametrize("endpoint", ["node-2.2.1", "sdk"], indirect=True)
def test_no_user_sees_an_error_in_the_messy_flow(cluster, endpoint, pool):
    assert_flows(cluster, endpoint, pool)


@engines("postgresql-uvicorn")
@pytest.mark.parametrize("endpoint", ["node-2.2.1"], indirect=True)
def test_no_user_sees_an_error_in_the_messy_flow_on_postgresql(cluster, endpoint, pool):
    assert_flows(cluster, endpoint, pool)


def assert_flows(cluster: Cluster, endpoint: Endpoint, pool: str) -> None:
    """Lead the flow and assert what the users, the runners and the engine say of it."""
    run = lead_messy_flow(cluster, endpoint, pool)

    assert [answer.status_code for answer in run.answers] == [200] * 4
    assert [answer.json()["generation"] for answer in run.answers] == [1, 1, 3, 3]
    assert_one_life_at_a_time(endpoint, run.actor_id, generations=4)
    assert len(endpoint.events("start_request", pool=pool)) == 3
    flow = messy(ENDINGS[endpoint.name])
    assert recorded_as(flow, run.recorded) == laid_out(flow)


def assert_one_life_at_a_time(endpoint: Endpoint, actor_id: str, generations: int) -> None:
    """Assert by the runners' own words that no life began before the one before had ended.

    A life also ends with its runner's eviction, whatever code of it may linger.
    """
    lives = []
    living: dict[str, object] | None = None
    for event in endpoint.journal():
        match event["event"]:
            case "actor_start" if event["actorId"] == actor_id:
                assert living is None, f"{event} while {living}"
                living = event
                lives.append(event["generation"])
            case "actor_stop" if event["actorId"] == actor_id and living is not None:
                if living["generation"] == event["generation"]:
                    living = None
            case "evicted" if living is not None and event["runnerId"] == living.get("runnerId"):
                living = None
    assert lives == list(range(generations))
    assert living is None
