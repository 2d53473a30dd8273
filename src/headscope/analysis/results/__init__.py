"""Runs side by side: scores, tests and calibration."""
