"""Remote execution by REAPI v2: a step's commands run by workers of an engine that others keep.

`address` is all that is imported without `--remote`; the rest needs grpcio (requirements-remote.txt). Each command is
one action: its mounts are the input root, which the worker shows as `/`; its writable mounts are what comes back.
"""
