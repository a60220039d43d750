"""Floor 1: mathematics that knows no model."""
