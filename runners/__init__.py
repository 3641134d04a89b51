"""Runners: the processes that host actors, the pools they belong to, and the protocol they speak."""
