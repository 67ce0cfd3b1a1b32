-- What are actions worth, if what follows is worth what was thought before?
-- One sweep: the mean target of every pair in the log. A successor from which nothing was ever done is worth
-- initial_value, and so is nothing but what the log has tried: the maximum is over actions that occur.
SELECT
  model.state, model.action,
  SUM(reward_sum + :discount * model.num_rows * discount * COALESCE(value, :initial_value)) / SUM(model.num_rows) AS q,
  ANY_VALUE(before.q) AS q_before,
  SUM(model.num_rows) AS num_rows
FROM {model} AS model
LEFT JOIN (SELECT state, MAX(q) AS value FROM {q} GROUP BY state) AS ahead ON model.successor = ahead.state
JOIN {q} AS before ON model.state = before.state AND model.action = before.action
GROUP BY model.state, model.action
