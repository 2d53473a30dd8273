"""Cohorts, records, results and commands that several test modules share."""
