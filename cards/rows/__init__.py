"""The rows of a release: columns, order, files."""
