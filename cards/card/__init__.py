"""What a release or a student says of itself: cards, datasheet, citation, Croissant."""
