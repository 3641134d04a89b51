import subprocess
import sys

import pytest

from manage import LIGHT
from tests.support.child import REPOSITORY


@pytest.mark.parametrize("module", LIGHT.values(), ids=LIGHT)
def test_light_command_loads_none_of_the_applications(module: str) -> None:
    heavy = "{'celery', 'channels', 'ninja', 'redis', 'django.contrib.admin'} & set(sys.modules)"

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, {module}; from django.conf import settings; settings.DEBUG; print({heavy})",
        ],
        env={"DJANGO_SETTINGS_MODULE": "orchestrator.settings", "TORPOR_SECRET_KEY": "x"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )

    assert (done.stdout.strip(), done.stderr) == ("set()", "")
