"""What a result must keep, as rules inside the sampling loop: spacing, bounds, shapes, pixels."""
