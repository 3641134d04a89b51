"""The RivetKit example on an engine, by way of RivetKit's own client: as a runner, serverless, and with tokens."""

import json

import pytest

from tests.support.api import Api
from tests.support.cluster import Cluster
from tests.support.rivetkit import FROM_ZERO, RUNNER_SCENARIOS, SERVERLESS_SCENARIOS, WITH_TOKENS, RivetKit
from tests.support.stories import engines

pytestmark = pytest.mark.e2e

MODES = [("runner", name) for name in RUNNER_SCENARIOS] + [("serverless", name) for name in SERVERLESS_SCENARIOS]


@pytest.fixture(scope="module")
def played(cluster: Cluster, tmp_path_factory):
    """What came of the scenarios of both modes, played the first time that one is asked for."""
    outcomes = {}

    def outcome(mode, name):
        if mode not in outcomes:
            outcomes[mode] = _play(cluster, tmp_path_factory.mktemp("rivetkit"), mode)
        return outcomes[mode][name]

    return outcome


def _play(cluster, directory, mode):
    """Play in a namespace of its own. Clients come by another web process than the runner's."""
    serverless = mode == "serverless"
    cluster.api.create_namespace(mode)
    with (
        Api(cluster.urls[0], mode) as api,
        RivetKit(directory, api, "kit", serverless=serverless) as application,
    ):
        first = application.play(cluster.urls[1], [FROM_ZERO]) if serverless else {}
        outcomes = first | application.play(cluster.urls[1], RUNNER_SCENARIOS)
        api.delete_pool("kit")
    return outcomes


@engines("sqlite-daphne", "sqlite-uvicorn")
@pytest.mark.parametrize(("mode", "name"), MODES, ids=[f"{name} ({mode})" for mode, name in MODES])
def test_what_clients_expect(played, mode, name):
    error = played(mode, name)
    assert error is None, error  # whole: pytest shortens what it compares


@engines("sqlite-daphne-guarded")
@pytest.mark.parametrize("serverless", [False, True], ids=["runner", "serverless"])
def test_all_of_it_with_tokens_and_nothing_without(cluster, tmp_path, serverless):
    application_token, client_token = make_token(cluster, "runner", "client"), make_token(cluster, "client")
    pool = "kit-serverless" if serverless else "kit"
    with RivetKit(tmp_path, cluster.api, pool, serverless=serverless, token=application_token) as application:
        outcomes = application.play(cluster.urls[1], WITH_TOKENS, client_token)
        cluster.api.delete_pool(pool)
    failures = {name: error for name, error in outcomes.items() if error is not None}
    assert not failures, "\n\n".join(f"{name}: {error}" for name, error in failures.items())
    assert set(outcomes) == set(WITH_TOKENS)


def make_token(cluster, *scopes):
    chosen = [option for scope in scopes for option in ("--scope", scope)]
    return json.loads(cluster.manage("tokens", "create", "kit", *chosen, "--json"))["secret"]
