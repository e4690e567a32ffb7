"""SQL over a run's tables: fenced, read-only, in a process apart where it is somebody else's."""
