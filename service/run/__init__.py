"""Runs as the page and the API show them: started, read, kept; their teachers, judges and costs."""
