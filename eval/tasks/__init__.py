"""One benchmark a file; each opens with its data, metric, protocol and source."""
