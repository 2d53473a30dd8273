"""Cohorts with known differences, made or fetched."""
