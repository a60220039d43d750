"""Training: losses, schedules, options, and one loop."""
