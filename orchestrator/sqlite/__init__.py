"""Django's SQLite backend, made fit for several writing processes: see `base`."""
