"""Speed, side by side: ``python -m benchmarks`` (see ``--help``)."""
