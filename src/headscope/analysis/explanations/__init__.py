"""What else could explain an accuracy: rivals, confounders, other cohorts (no torch)."""
