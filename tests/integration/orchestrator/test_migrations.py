"""Migrations of this release leave the one before running (docs/reliability.md, Upgrades)."""

import re
from collections.abc import Mapping

import pytest
from django.apps import apps
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ModelState, ProjectState

from tests.support.additive import faults
from tests.support.child import REPOSITORY

OURS = ("actors", "gateway", "orchestrator", "runners")
BEFORE_THE_FIRST_RELEASE = {
    "actors": 5,
    "gateway": 1,
    "orchestrator": 4,
    "runners": 5,
}
"""The number of each app's last migration that nobody's older release has to live with."""

RELEASED = frozenset(re.findall(r"^## \[(\d[^]]*)]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE))


def test_every_app_with_tables_is_looked_at() -> None:
    with_tables = {
        config.label
        for config in apps.get_app_configs()
        if list(config.get_models())
        and REPOSITORY in REPOSITORY.joinpath(config.path).parents
        and ".venv" not in config.path
    }
    assert with_tables == set(OURS)


def breaking(after: Mapping[str, int]) -> dict[str, list[str]]:
    """Return what is wrong with each migration that comes after these."""
    loader = MigrationLoader(None)
    return {
        str(migration): wrong
        for (app, name), migration in loader.disk_migrations.items()
        if app in OURS and int(name[:4]) > after[app]
        if (wrong := faults(migration, loader.project_state(migration.dependencies), RELEASED))
    }


def test_no_migration_breaks_the_release_before() -> None:
    assert breaking(BEFORE_THE_FIRST_RELEASE) == {}


def test_one_that_would_break_it_is_found() -> None:
    assert "runners.0004_by_hand" in breaking(dict.fromkeys(OURS, 0))  # a column without a default in the database


FIELDS = {
    "id": models.AutoField(primary_key=True),
    "name": models.CharField(max_length=20),
    "note": models.TextField(null=True),
    "size": models.IntegerField(db_default=1),
}
ADD = migrations.AddField
ALTER = migrations.AlterField
GOES = [migrations.RemoveField("bike", "note"), migrations.DeleteModel("bike")]


def judged(*operations: migrations.operations.base.Operation, **attributes: str) -> list[str]:
    before = ProjectState()
    before.add_model(ModelState("bikes", "Bike", list(FIELDS.items())))
    migration = migrations.Migration("0002_more", "bikes")
    migration.operations = list(operations)
    for name, value in attributes.items():
        setattr(migration, name, value)
    return faults(migration, before, {"1.4.0"})


@pytest.mark.parametrize(
    "operation",
    [
        migrations.CreateModel("Lock", [("id", models.AutoField(primary_key=True)), ("code", models.TextField())]),
        ADD("bike", "colour", models.TextField(null=True)),
        ADD("bike", "colour", models.TextField(db_default="red", default="red")),
        ADD("bike", "plate", models.TextField(null=True, unique=True)),
        ADD("bike", "friends", models.ManyToManyField("bikes.bike")),
        ALTER("bike", "name", models.CharField(max_length=40)),
        ALTER("bike", "name", models.CharField(max_length=20, null=True)),
        ALTER("bike", "name", models.CharField(max_length=20, help_text="as it is called")),
        migrations.AddIndex("bike", models.Index(fields=["name"], name="by_name")),
        migrations.AlterModelOptions("bike", {"ordering": ["name"]}),
        migrations.SeparateDatabaseAndState(state_operations=GOES[:1]),
    ],
    ids=lambda one: one.describe(),
)
def test_what_is_added_or_widened_may_come(operation: migrations.operations.base.Operation) -> None:
    assert judged(operation) == []


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (ADD("bike", "colour", models.TextField(default="red")), "rows without it"),
        (ADD("bike", "plate", models.TextField(db_default="", unique=True)), "the same value"),
        (ADD("bike", "owner", models.ForeignKey("bikes.bike", models.CASCADE)), "rows without it"),
        (ALTER("bike", "note", models.TextField(db_default="")), "writes NULL"),
        (ALTER("bike", "name", models.CharField(max_length=10)), "varchar(20) becomes varchar(10)"),
        (ALTER("bike", "size", models.TextField(db_default="1")), "integer becomes text"),
        (ALTER("bike", "size", models.IntegerField()), "may write rows without it"),
        (ALTER("bike", "name", models.CharField(max_length=20, unique=True)), "does not keep it unique"),
        (ALTER("bike", "name", models.CharField(max_length=20, db_column="title")), "the old name"),
        (migrations.RenameField("bike", "note", "remark"), "the old name"),
        (
            migrations.AddConstraint("bike", models.UniqueConstraint(fields=["name"], name="one")),
            "does not keep it",
        ),
        (migrations.AlterUniqueTogether("bike", {("name", "note")}), "nobody can judge it"),
        (migrations.AlterModelTable("bike", "bicycle"), "nobody can judge it"),
        (migrations.RenameModel("bike", "bicycle"), "nobody can judge it"),
        (migrations.RunSQL("DELETE FROM bikes_bike"), "nobody can judge it"),
        (migrations.RunPython(migrations.RunPython.noop), "nobody can judge it"),
        (migrations.SeparateDatabaseAndState([migrations.RunSQL("DROP TABLE bikes_bike")]), "nobody can judge it"),
        *((one, "the release before uses it") for one in GOES),
    ],
    ids=lambda one: one.describe() if isinstance(one, migrations.operations.base.Operation) else "",
)
def test_what_the_release_before_would_miss_or_break_on_is_refused(
    operation: migrations.operations.base.Operation, why: str
) -> None:
    (fault,) = judged(operation)
    assert why in fault


@pytest.mark.parametrize("operation", GOES, ids=lambda one: one.describe())
def test_what_no_release_that_may_still_run_uses_may_go(operation: migrations.operations.base.Operation) -> None:
    assert judged(operation, unused_since="1.4.0") == []
    assert len(judged(operation, unused_since="1.5.0")) == 1  # it is not out


def test_code_may_run_if_somebody_says_why() -> None:
    code = migrations.RunPython(migrations.RunPython.noop)
    assert judged(code, beside_older="it writes to a table that no release knew") == []


def test_a_table_that_nobody_has_used_yet_may_be_changed_at_will() -> None:
    lock = migrations.CreateModel("Lock", [("id", models.AutoField(primary_key=True))])
    assert judged(lock, ADD("lock", "code", models.TextField(default=""))) == []
    assert judged(ADD("bike", "code", models.TextField(default="")), lock) != []
