"""From a folder of scans to labelled slices and an honest split."""
