"""The program around the mathematics: files, signals, processes, progress, model modes."""
