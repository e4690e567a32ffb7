"""report.html and report.json of a run."""
