"""The page: screens, their templates and forms, and what a browser loads beside them."""
