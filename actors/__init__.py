"""Actors: their lifecycle, the workflow that carries it out, and what can be asked of them."""
