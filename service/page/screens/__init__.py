"""The pages of the service, one module each: its paths, its forms, and its place in the navigation."""
