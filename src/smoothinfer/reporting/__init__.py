"""Tables, figures and pages, made from rows alone."""
