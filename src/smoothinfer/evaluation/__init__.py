"""From models to rows: one row per image and setting, in units of work that can be resumed."""
