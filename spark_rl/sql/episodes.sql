-- How did every episode end, and what did it earn?
-- One row an episode that ended, or was cut (`end_reason = 'cut'`: leave these out of return statistics). `iteration`
-- is the one in which it ended; it began in `first_iteration` and may have been played by several policy versions.
SELECT *
FROM {stored}
