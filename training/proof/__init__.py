"""The proof that a training reaches the reasoning: on the trainer's batches, and on anybody's conversations."""
