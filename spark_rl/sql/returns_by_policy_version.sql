-- How good was every policy version while it collected?
-- One row a version, over the episodes that ended under it (cut ones are no measure of return and are left out). An
-- episode that several versions played counts for the last of them; `num_episodes_shared` says how many those were.
-- `return_se` is the standard error of the mean, NULL for a single episode. `return_iqm` is the mean without the lowest
-- and the highest quarter (Agarwal et al. 2021, arXiv:2108.13264). Quantiles are exact, linear between neighbours.
WITH ranked AS (
  SELECT
    run_id,
    policy_version_max AS policy_version,
    policy_version_min < policy_version_max AS shared,
    episode_return,
    ROW_NUMBER() OVER (PARTITION BY run_id, policy_version_max ORDER BY episode_return) AS place,
    COUNT(*) OVER (PARTITION BY run_id, policy_version_max) AS size
  FROM episodes
  WHERE end_reason <> 'cut'
)
SELECT
  run_id,
  policy_version,
  COUNT(*) AS num_episodes,
  COUNT_IF(shared) AS num_episodes_shared,
  AVG(episode_return) AS return_mean,
  STDDEV_SAMP(episode_return) / SQRT(COUNT(*)) AS return_se,
  MIN(episode_return) AS return_min,
  PERCENTILE(episode_return, 0.05) AS return_p05,
  PERCENTILE(episode_return, 0.25) AS return_p25,
  PERCENTILE(episode_return, 0.50) AS return_p50,
  PERCENTILE(episode_return, 0.75) AS return_p75,
  PERCENTILE(episode_return, 0.95) AS return_p95,
  MAX(episode_return) AS return_max,
  AVG(episode_return) FILTER (WHERE place > size DIV 4 AND place <= size - size DIV 4) AS return_iqm
FROM ranked
GROUP BY run_id, policy_version
