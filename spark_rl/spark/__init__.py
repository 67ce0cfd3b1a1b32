"""The room that names pyspark: the session, the driver's side of a job, the executor's side."""
