"""One training: estimate, trainer, loop, checkpoints, and the folder that it leaves."""
