"""Losses and targets: pure functions of tensors, with no optimizer, no logging and no clock."""
