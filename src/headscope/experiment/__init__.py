"""From a folder of scans to the records of a grid of runs."""
