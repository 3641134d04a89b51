import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from orchestrator import settings
from tests.support.child import REPOSITORY


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TORPOR_SHARDS", "many", "TORPOR_SHARDS='many': Input should be a valid integer"),
        ("TORPOR_SHARDS", "0", "TORPOR_SHARDS='0': Input should be greater than or equal to 1"),
        ("TORPOR_LOG_LEVEL", "loud", "TORPOR_LOG_LEVEL='loud': Input should be 'DEBUG', "),
        ("TORPOR_PUBLIC_URL", "engine.example", "TORPOR_PUBLIC_URL: Value error, must be an absolute http"),
        ("REDIS_URL", "http://secret@host", "REDIS_URL: Value error, must begin with redis://"),
    ],
)
def test_a_wrong_value_stops_the_boot_and_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ImproperlyConfigured) as caught:
        settings._read_environment()
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_SHARDS", "many")
    monkeypatch.setenv("TORPOR_ACTOR_START_MS", "soon")
    with pytest.raises(ImproperlyConfigured) as caught:
        settings._read_environment()
    assert [line.partition("=")[0] for line in str(caught.value).splitlines()] == [
        "TORPOR_SHARDS",
        "TORPOR_ACTOR_START_MS",
    ]


def read(state: Path, **env: str) -> dict[str, Any]:
    """Return what a new process makes of that environment."""
    script = """if True:
        import json
        from orchestrator import settings
        database = settings.DATABASES["default"]
        print(json.dumps({
            "engine": database["ENGINE"],
            "name": database["NAME"],
            "redis": settings.REDIS_URL,
            "key": settings.SECRET_KEY,
        }))
    """
    unset = {"DATABASE_URL": "", "REDIS_URL": "", "TORPOR_SECRET_KEY": "", "TORPOR_STATE": str(state)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=os.environ | unset | env,
        capture_output=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_the_embedded_stores_are_in_the_state_directory_whatever_its_name(tmp_path: Path) -> None:
    state = tmp_path / "a %20b?"
    state.mkdir()
    (state / "secret_key").write_text("stored\n")
    found = read(state)
    assert found["engine"] == "orchestrator.sqlite"
    assert found["name"] == str(state / "torpor.sqlite3")
    assert found["redis"] == f"unix://{tmp_path}/a%20%2520b%3F/redis.sock?db=0"
    assert found["key"] == "stored"


def test_servers_named_by_the_environment_win(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        DATABASE_URL="postgresql://user@host/engine",
        REDIS_URL="rediss://host:7000/3",
        TORPOR_SECRET_KEY="named",
    )
    assert (found["engine"], found["name"]) == ("orchestrator.postgres", "engine")
    assert (found["redis"], found["key"]) == ("rediss://host:7000/3", "named")


def test_a_process_without_any_key_has_one_that_nobody_knows(tmp_path: Path) -> None:
    assert read(tmp_path)["key"] != read(tmp_path)["key"]
