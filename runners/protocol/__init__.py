"""The runner protocol, versions 4 to 7: its messages as values, and their bytes on the runner's socket.

`messages` names every message, `codec` turns them into frames and back; the other modules are its parts.
Only the standard library is needed here (and the error tree), so that the runner SDK runs without Django.
"""
