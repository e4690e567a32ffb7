"""Students trained, asked and measured, and studies, as the page and the API show them."""
