-- What does a log say about every state and action?
-- The distinct transitions of a table, each once: all that fitted Q iteration needs, and far less than the rows.
SELECT
  state, action, successor, discount,
  SUM(reward) AS reward_sum,
  COUNT(*) AS num_rows
FROM {rows}
WHERE successor IS NOT NULL
GROUP BY state, action, successor, discount
