"""Environments: made from plain data, stepped in groups, carried across iterations."""
