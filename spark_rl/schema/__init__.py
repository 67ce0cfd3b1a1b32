"""The treaty between the half that records experience and the half that learns from it."""
