"""The service: `saferthoughts serve`, the stages over HTTP and from a page."""
