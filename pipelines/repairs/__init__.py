"""What a teacher is told when a row is asked for again: a template a pattern, combined."""

# How every repair request begins; the rehearsal teacher tells by them what it is asked.
OPENING = "An earlier attempt at this request was turned down."
EDIT_OPENING = "Rewrite the reasoning of the response below."
