"""What the final layer reads: classes, subjects, positions and stages."""
