-- How did return and episode length grow with experience?
-- One row a committed iteration. Returns and lengths are of the episodes that ended in it (cut ones are left out), NULL
-- where none did. `elapsed_s` is the time that the loop has worked up to here, evaluations included, Spark's start and
-- pauses between resumes not. `evaluation_*` are greedy episodes of the version that this iteration's learning gave.
WITH ended AS (
  SELECT
    run_id,
    iteration,
    COUNT(*) AS num_episodes,
    AVG(episode_return) AS return_mean,
    STDDEV_SAMP(episode_return) / SQRT(COUNT(*)) AS return_se,
    PERCENTILE(episode_return, 0.25) AS return_p25,
    PERCENTILE(episode_return, 0.50) AS return_p50,
    PERCENTILE(episode_return, 0.75) AS return_p75,
    AVG(length) AS length_mean,
    PERCENTILE(length, 0.25) AS length_p25,
    PERCENTILE(length, 0.50) AS length_p50,
    PERCENTILE(length, 0.75) AS length_p75
  FROM episodes
  WHERE end_reason <> 'cut'
  GROUP BY run_id, iteration
)
SELECT
  run_id,
  iteration,
  policy_version,
  env_steps,
  SUM(time_iteration_s) OVER (PARTITION BY run_id ORDER BY iteration) AS elapsed_s,
  throughput_env_steps_per_s AS env_steps_per_s,
  COALESCE(ended.num_episodes, 0) AS num_episodes,
  return_mean,
  return_se,
  return_p25,
  return_p50,
  return_p75,
  length_mean,
  length_p25,
  length_p50,
  length_p75,
  evaluation_return_mean,
  evaluation_return_low,
  evaluation_return_high
FROM iterations
LEFT JOIN ended USING (run_id, iteration)
