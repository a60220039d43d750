"""Many noisy passes, one answer: the smoothed classifier and its certificates."""
