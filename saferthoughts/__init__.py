"""SaferThoughts: from prompts to safe reasoning data to a trained, measured student."""
