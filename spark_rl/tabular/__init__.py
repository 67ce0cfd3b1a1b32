"""Learning in tables, in numpy alone: what executors and the driver both compute. Names neither Spark nor torch."""
