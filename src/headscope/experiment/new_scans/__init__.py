"""A finished network meets scans that it was not trained on."""
