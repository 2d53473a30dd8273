"""What the accuracy is worth: the same runs with leakage measured."""
