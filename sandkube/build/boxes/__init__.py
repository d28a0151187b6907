"""Ways to run a step's commands: in bubblewrap's namespaces as far as the machine gives them, or in none.

`bubblewrap` starts the build sandbox in one of its forms, `probe` finds the form by trying, `refusal` says why there is
none and what to do, `unboxed` does without. None of this is in a step's key: it isolates, and writes no output byte.
"""
