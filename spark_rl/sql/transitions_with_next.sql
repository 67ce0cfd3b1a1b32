-- What came after every step?
-- For temporal-difference targets and offline learning.
-- `next_observation` is the true successor, never the observation after a reset. A stored final_observation decides: it
-- stands where an episode ended, and at the end of a fragment whose episode goes on in the next iteration's file.
-- `next_action` is NULL where nothing was done next. `discount` is the factor of the bootstrap: 0 after a real end, 1
-- otherwise, a time limit included.
SELECT
  *,
  COALESCE(final_observation, LEAD(observation) OVER episode) AS next_observation,
  LEAD(action) OVER episode AS next_action,
  CASE WHEN terminated THEN 0D ELSE 1D END AS discount
FROM transitions
WINDOW episode AS (PARTITION BY run_id, episode_id ORDER BY t)
