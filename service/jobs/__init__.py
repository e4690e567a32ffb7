"""Work of the service: the queue, child processes, and the keys that they are given."""
