"""One file for each command, named by the word that a user types.

A file has ``add_arguments(parser)``, ``run(options)``, which returns the exit status, and the work
of the command as functions that Python users can call.
"""
