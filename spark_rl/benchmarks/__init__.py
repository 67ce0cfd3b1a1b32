"""The figures of the README, each a ratio of two things measured side by side: `spark-rl benchmark NAME`."""
