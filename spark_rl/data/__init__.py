"""From committed Parquet to batches on the learner's device. Knows no Spark."""
