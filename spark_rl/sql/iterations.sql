-- What did every round of collecting and learning do, and how long did it take?
-- One row a committed iteration: its commit record, then every metric, with `_` for `/` in the names.
-- `env_steps` counts from the start of the run, `num_rows` this iteration; names ending in `_s` are seconds.
SELECT *
FROM {stored}
