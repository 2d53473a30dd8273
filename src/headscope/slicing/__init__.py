"""Volumes → the slice store."""
