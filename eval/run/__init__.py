"""Running an evaluation: planned, asked by Inspect, counted, scored again."""
