"""One objective a file, found by itself; each ends with its OBJECTIVE."""
