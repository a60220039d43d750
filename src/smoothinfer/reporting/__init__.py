"""Floor 7: tables and pictures, drawn from rows alone."""
