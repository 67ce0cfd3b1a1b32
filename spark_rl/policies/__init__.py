"""How to act: specs, weights, the numpy acting side and the torch networks. Importing this room imports no torch."""
