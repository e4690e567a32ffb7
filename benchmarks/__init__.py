"""What measures the project: one benchmark a file, each with `--quick`, each ending in one line of JSON."""
