"""Floor 5: losses, schedules and one loop."""
