#!/usr/bin/env python3
"""Django's command line for this project."""

import importlib
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

LIGHT = {"up": "orchestrator.management.commands.up"}
"""Commands that only look after other processes: Django's applications, some 40 MB, are not loaded for them."""


def main(arguments: list[str]) -> None:
    """Run one command."""
    if light := LIGHT.get("".join(arguments[1:2])):
        importlib.import_module(light).Command().run_from_argv(arguments)
    else:
        execute_from_command_line(arguments)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")
    try:
        main(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"manage.py: {error}")
