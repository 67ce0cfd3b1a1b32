-- Which weights are there, which acted when, and where do they lie?
-- One row a policy version. `iteration` is the first one it acted in, NULL where it has not acted (the final version).
-- `algorithm` and `parent_version` are NULL in a collection, whose policy was not learned there.
-- `created_at` is the time of the file, which a resumed run may have written again with the same bytes.
SELECT *
FROM {stored}
