"""Bad commands and damaged files from a seed: none ends in a traceback, code or a wrong result."""
