"""A run's tables as SQL views, one .sql file each, and the code that registers and queries them."""
