"""One file → a volume in canonical RAS."""
