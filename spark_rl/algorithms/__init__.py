"""How to learn: one file an algorithm, each with its config and its update."""
