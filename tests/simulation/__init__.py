"""A deterministic simulator: the engine's own decisions and rows, and everything around them made up.

One seed is one run. Workflows, claims, registrations and the gateway's watch are the product's code on a real
database; time, Redis, processes, sockets and endpoints are the simulator's, so that any of them can fail at any
step.
"""
