"""Training: slices to the device, one loop, exact resume."""
