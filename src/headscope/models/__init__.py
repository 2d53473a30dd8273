"""Networks: where they come from, their final layer, and what a regime may change."""
