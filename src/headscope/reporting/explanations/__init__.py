"""Chapters on what else could explain an accuracy."""
