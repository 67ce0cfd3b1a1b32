-- What happened at every env step?
-- One row a step: what was seen, what was done, and what that same step returned. `is_last` marks the step that ended
-- its episode; an episode that was cut (see `episodes`) has none.
SELECT *, t = 0 AS is_first, terminated OR truncated AS is_last
FROM {stored}
