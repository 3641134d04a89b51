"""How fast the engine is on this machine: `python -m benchmarks`, described in docs/performance.md."""
