"""Files that other runtimes load: one noisy pass, and a whole vote, as ONNX or `torch.export`."""
