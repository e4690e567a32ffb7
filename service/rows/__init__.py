"""A run's rows as the page and the API show them: laid out, indexed, filtered, searched, compared, exported."""
