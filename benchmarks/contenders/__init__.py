"""The programs that `benchmarks/generation.py` runs side by side, each in a process of its own.

Those of other projects are plain scripts that need nothing of ours, since each may run in its own environment. All take
`PROMPTS URL IN_FLIGHT FOLDER`: a file of prompts, one a line; the endpoint; how many requests at once; a folder to
write to. They exit with an error where an answer is missing.
"""
