"""The stages as one list, for the front door and for whatever else starts runs."""
