"""Processes that answer nobody load nothing of what answers people: it would be a good part of their memory."""

import subprocess
import sys

import pytest

from tests.support.child import REPOSITORY

HEAVY = ("httpx", "orchestrator.api.app", "orchestrator.urls", "console.urls", "gateway.http")
_LOADED = "import sys; {}; print(*(name for name in {} if name in sys.modules))"
_DJANGO = "import django; django.setup()"


@pytest.mark.parametrize(
    ("loads", "has"),
    [
        ("from orchestrator.management.commands import up", []),
        ("from orchestrator.celery import app; app.loader.import_default_modules()", []),
        (f"{_DJANGO}; from orchestrator.management.commands import sweeper", []),
        (
            f"{_DJANGO}; from orchestrator.management.commands import runworker; import runners.serverless",
            ["httpx"],
        ),
    ],
    ids=["up", "worker", "sweeper", "connector"],
)
def test_it_loads_no_more_than_it_needs(loads, has):
    command = [sys.executable, "-c", _LOADED.format(loads, HEAVY)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == has


@pytest.mark.parametrize("command", ["sweeper", "runworker"])
def test_it_leaves_the_checks_which_load_all_views_to_web_processes(command):
    from django.core.management import get_commands, load_command_class

    assert load_command_class(get_commands()[command], command).requires_system_checks == []
