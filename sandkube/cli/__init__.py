"""What `./do` understands: one module a verb, and what doit needs of us."""
