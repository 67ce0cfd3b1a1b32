"""How good is a policy: statistics over episodes."""
