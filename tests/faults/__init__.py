"""Attacks on a whole engine of real processes: a load, faults from a seed, and a checker of DESIGN's invariants.

`make faults SEED=1` is one run; `docs/reliability.md` says what each fault is and how every row of its table is
reproduced. `schedule.py` and `checker.py` do no I/O; `fleet.py` is the engine, `load/` what its clients do,
`injection/` what is done to it, `run.py` puts them together.
"""
