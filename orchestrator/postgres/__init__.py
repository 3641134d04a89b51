"""Django's PostgreSQL backend, made sure of its isolation: see `base`."""
