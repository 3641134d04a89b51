"""The engine starts with one namespace (API §7)."""

from django.db import migrations


def create_default(apps, schema_editor):
    namespaces = apps.get_model("orchestrator", "Namespace").objects
    namespaces.get_or_create(name="default", defaults={"display_name": "Default"})


class Migration(migrations.Migration):
    dependencies = [("orchestrator", "0001_initial")]
    operations = [migrations.RunPython(create_default, migrations.RunPython.noop)]
