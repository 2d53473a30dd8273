"""What could flatter the accuracy of a cohort."""
