"""The decisions behind a runner's conversation with the engine: standard library and protocol only, no I/O."""
