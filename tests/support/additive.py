"""Judges migrations: does the release before go on working beside what one does to the database?

During a rolling restart processes of two releases share the tables, so a migration may add what the older one need
not know, and take nothing it uses (docs/reliability.md, Upgrades). Two attributes of a `Migration` say what the
operations cannot:

    unused_since = "1.4.0"      the first release that does not use what goes; it must be out already
    beside_older = "because …"  why the release before may run beside code or SQL, which nobody can judge
"""

from collections.abc import Collection, Iterator

from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.fields import AddField, AlterField, RemoveField, RenameField
from django.db.migrations.operations.models import (
    AddConstraint,
    AddIndex,
    AlterIndexTogether,
    AlterModelManagers,
    AlterModelOptions,
    CreateModel,
    DeleteModel,
    RemoveConstraint,
    RemoveIndex,
    RenameIndex,
)
from django.db.migrations.operations.special import SeparateDatabaseAndState
from django.db.migrations.state import ProjectState
from django.db.models import CharField, Field
from django.db.models.fields import NOT_PROVIDED

HARMLESS = (
    AddIndex,
    RemoveIndex,
    RenameIndex,
    AlterIndexTogether,
    AlterModelOptions,
    AlterModelManagers,
    CreateModel,
)
REMOVING = (RemoveField, DeleteModel, RemoveConstraint)
Found = Iterator[str]


def faults(migration: Migration, before: ProjectState, released: Collection[str]) -> list[str]:
    """Return what would break the release before, for each operation; `before` is the models' state then."""
    state, created = before.clone(), set[str]()
    return [fault for one in migration.operations for fault in _faults(one, migration, state, created, released)]


def _faults(
    operation: Operation, migration: Migration, state: ProjectState, created: set[str], released: Collection[str]
) -> Found:
    """Judge one operation and take the state past it."""
    if isinstance(operation, SeparateDatabaseAndState):
        own = state.clone()
        for one in operation.database_operations:
            yield from _faults(one, migration, own, created, released)
    elif getattr(operation, "model_name", "").lower() not in created:
        earlier = state.clone()
        operation.state_forwards(migration.app_label, state)
        yield from (
            f"{operation.describe()}: {why}" for why in _why_not(operation, migration, earlier, state, released)
        )
        if isinstance(operation, CreateModel):
            created.add(operation.name_lower)
        return
    operation.state_forwards(migration.app_label, state)


def _why_not(
    operation: Operation,
    migration: Migration,
    before: ProjectState,
    after: ProjectState,
    released: Collection[str],
) -> Found:
    match operation:
        case AddField():
            yield from _added(_field(operation, migration, after))
        case AlterField():
            yield from _altered(_field(operation, migration, before), _field(operation, migration, after))
        case _ if isinstance(operation, HARMLESS):
            return
        case _ if isinstance(operation, REMOVING):
            since = getattr(migration, "unused_since", None)
            if since not in released:
                yield f"the release before uses it; unused_since must name one that is out, and is {since!r}"
        case RenameField():
            yield "the release before knows the old name: add the new one, and remove the old one later"
        case AddConstraint():
            yield "the release before does not keep it"
        case _ if not getattr(migration, "beside_older", ""):
            yield "nobody can judge it: say in beside_older why the release before may run beside it"


def _field(operation: AddField | AlterField, migration: Migration, state: ProjectState) -> Field:
    model = state.apps.get_model(migration.app_label, operation.model_name)
    return model._meta.get_field(operation.name)


def _added(field: Field) -> Found:
    if not field.many_to_many and not _may_be_left_out(field):
        yield "the release before writes rows without it: let it be null, or give it a db_default"
    if field.unique and not field.null:
        yield "rows that the release before writes would have the same value"


def _altered(old: Field, new: Field) -> Found:
    if old.column != new.column:
        yield "the release before knows the old name"
    if _type(old) != _type(new) and not _is_longer(old, new):
        yield f"{_type(old)} becomes {_type(new)}"
    if old.null and not new.null:
        yield "the release before writes NULL"
    if _may_be_left_out(old) and not _may_be_left_out(new):
        yield "a release before may write rows without it"
    if new.unique and not old.unique:
        yield "the release before does not keep it unique"
    if getattr(new, "db_constraint", False) and not getattr(old, "db_constraint", False):
        yield "the release before does not keep the reference whole"


def _may_be_left_out(field: Field) -> bool:
    return field.null or field.db_default is not NOT_PROVIDED


def _type(field: Field) -> str | None:
    return field.db_type(connection)


def _is_longer(old: Field, new: Field) -> bool:
    """Whether there is more room in a column of text."""
    if not (isinstance(old, CharField) and isinstance(new, CharField)):
        return False
    return new.max_length is None or (old.max_length is not None and new.max_length > old.max_length)
