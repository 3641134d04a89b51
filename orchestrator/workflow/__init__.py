"""The one mechanism of every workflow: a mailbox per shard, a lock per shard, the pump, the sweep (DESIGN §2).

A house plugs in a `Workflow`: its name and the function that applies a batch of signals. Signals come in
through `mailbox.post` and nowhere else.
"""
