"""The audit: checks that tell real robustness from mere randomness."""
