"""The build engine: recipes and pins, derivations and keys, the plan, the store, and making what is stale."""
