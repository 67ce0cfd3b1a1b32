"""Learning on many executors."""
