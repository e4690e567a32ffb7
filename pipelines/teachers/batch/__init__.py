"""The Batch API: requests as files, answered within a day at half the price."""
