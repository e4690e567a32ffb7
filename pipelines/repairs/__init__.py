"""What a teacher is told when a row is asked for again: a template a pattern, combined."""

# How every repair request begins and ends; the rehearsal teacher tells by them what it is asked.
OPENING = "An earlier attempt at this request was turned down."
CLOSING = "What follows is the request as it was."
EDIT_OPENING = "Rewrite the reasoning of the response below."
