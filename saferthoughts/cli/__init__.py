"""The command line: `saferthoughts --help`."""
