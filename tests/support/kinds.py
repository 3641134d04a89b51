"""The implementations of a runner that the conformance kit drives: releases of the npm client, and our SDK."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.endpoint import Application, node_runner, sdk_runner
from tests.support.npm import CLIENT_RELEASES

NPM = tuple(f"npm-{release}" for release in reversed(CLIENT_RELEASES))
KINDS = ("sdk", *NPM)
DRAWS_ITS_KEY = ("sdk", "npm-2.2.1")
SPOKEN = {"sdk": 7, "npm-2.2.1": 7, "npm-2.1.5": 6, "npm-2.0.33": 5}
"""The version of the protocol each speaks."""


def start(kind: str, directory: Path, engine_url: str, pool: str, **options: Any) -> Application:
    """Return a runner of that kind, not yet started, with ten slots. It logs to `directory`, under its `name`."""
    options.setdefault("name", kind)
    if kind == "sdk":
        return sdk_runner(directory, engine_url, pool, 10, **options)
    return node_runner(directory, engine_url, pool, 10, release=kind.removeprefix("npm-"), **options)


def each_kind(*, group: str) -> pytest.MarkDecorator:
    """Run the tests once for each kind, those of one kind in one process: the runner is shared."""
    params = [pytest.param(kind, id=kind, marks=pytest.mark.xdist_group(f"{group}-{kind}")) for kind in KINDS]
    return pytest.mark.parametrize("kind", params, scope="module", indirect=True)
