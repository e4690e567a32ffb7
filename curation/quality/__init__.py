"""The checks: one `.sql` file each, and what runs them."""
