"""The engine turns (model, images, n) into votes: it runs all noisy passes and counts them."""
