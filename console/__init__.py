"""The live console: what the engine does, at a glance and as it happens, for staff."""
