"""The executor side: step environments with a policy, record facts, write them. No Spark, no learner."""
