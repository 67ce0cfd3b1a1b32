-- Which environment, algorithm, config, seed and code made these rows?
-- One row a run. `run_id` is the directory's name, `run_uuid` the identity written in run.json; `config`
-- is JSON, and so is `behavior`: the policy of a collection, NULL for a run that learns.
SELECT *
FROM {stored}
