"""Installs releases of npm packages, the runner client above all, once per machine, outside the repository."""

import fcntl
import json
import os
import subprocess
import tempfile
from pathlib import Path

CLIENT_PACKAGE = "@rivetkit/engine-runner"
CLIENT_RELEASES = ("2.2.1", "2.1.5", "2.0.33")  # protocols 7, 6 and 5
NODE_RUNNER = Path(__file__).resolve().parents[2] / "examples" / "node-runner" / "server.mjs"


def client_directory(release: str) -> Path:
    """Return a directory whose node_modules holds that release of the runner client."""
    return package_directory(CLIENT_PACKAGE, release)


def package_directory(package: str, release: str) -> Path:
    """Return a directory whose node_modules holds that release; install it, with npm, if need be."""
    directory = _cache_directory() / f"{package.rpartition('/')[2]}-{release}"
    directory.mkdir(parents=True, exist_ok=True)
    installed = directory / "installed"
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes come here at once
        if not installed.exists():
            manifest = {"private": True, "dependencies": {package: release}}
            (directory / "package.json").write_text(json.dumps(manifest))
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(command, cwd=directory, check=True, timeout=300)
            installed.touch()
    return directory


def _cache_directory() -> Path:
    """Return where test downloads are kept: the user's cache, else the system's temporary directory."""
    home = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    return Path(home) / "torpor-tests"
