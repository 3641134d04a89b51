"""A process that writes to an actor's storage as fast as it can and says what was acknowledged.

Of the database that the environment names, which is migrated. It prints `ready`, then `ok NUMBER` after each
write of that number, or `refused REASON` and tries again.
"""

import os
import sys
import time
from itertools import count

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")
django.setup()

from django.db import DatabaseError, connection  # noqa: E402

from orchestrator.models import Namespace  # noqa: E402
from tests.support.storage import Hosted  # noqa: E402

PAUSE_SECONDS = 0.01


def main(first: int) -> None:
    """Write numbers from `first` on under the key `count`, each with some bytes of ballast."""
    hosted = Hosted(Namespace.objects.get(name="default"), key=f"host-{first}")
    say(f"ready {hosted.actor.pk}")
    for number in count(first):
        while True:
            try:
                hosted.put(count=str(number), **{f"ballast-{number % 50}": "x" * 4_000})
                break
            except DatabaseError as error:
                say(f"refused {type(error).__name__}: {error}")
                connection.close()
                time.sleep(PAUSE_SECONDS)
        say(f"ok {number}")


def say(line: str) -> None:
    """Write a line to whoever has started us."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
