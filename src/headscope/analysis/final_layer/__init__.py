"""The final layer: its class rows, their correlation, and what training forces on it."""
