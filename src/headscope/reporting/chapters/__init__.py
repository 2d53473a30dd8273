"""Chapters of the page: what each part of the analysis has to say, as blocks."""
