"""Predictions of any origin, scored by subject (no torch)."""
