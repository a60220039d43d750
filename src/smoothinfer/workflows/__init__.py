"""One file for each command, named by the word that a user types."""
