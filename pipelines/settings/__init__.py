"""What a run is set to: run.yaml, the options that change it, and names of teachers and judges resolved."""
