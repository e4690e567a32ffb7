"""What passes between the service and who asks: requests let in, callers, bodies, problems, downloads."""
