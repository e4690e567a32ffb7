"""Studies: a YAML file names runs, methods, students and evaluations; members, their order and a report follow."""
