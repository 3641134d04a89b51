"""The Django project: settings, the workflow mechanism, the bus between processes, the servers."""

VERSION = "0.1.0"
"""The engine's version, as `/metadata`, `/health` and the user agent of outbound requests say it."""
