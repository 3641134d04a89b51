"""A process with two threads that write to a SQLite file as fast as they get in; says how long they waited.

Arguments: the file, the seconds. It prints a line when it is ready, starts when it reads one, and ends with
a JSON list of waits in seconds, or dies of the first error.
"""

import json
import sys
import threading
import time
import warnings

from django.conf import settings
from django.db import connection, transaction

HOLD_SECONDS = 0.002  # a small commit of ours


def main(path: str, seconds: float) -> None:
    settings.configure(DATABASES={"default": {"ENGINE": "orchestrator.sqlite", "NAME": path}})
    warnings.filterwarnings("ignore", "Accessing the database during app initialization")
    waits: list[float] = []
    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=_write, args=(seconds, waits)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(waits))


def _write(seconds: float, waits: list[float]) -> None:
    connection.ensure_connection()
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        with transaction.atomic():
            waits.append(time.monotonic() - began)
            with connection.cursor() as cursor:
                cursor.execute("UPDATE counter SET writes = writes + 1")
            time.sleep(HOLD_SECONDS)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
