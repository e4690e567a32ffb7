"""Models as Inspect asks them: endpoints, local checkpoints, judges and attackers."""
