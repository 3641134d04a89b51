"""How values are written in the admin, by language."""
