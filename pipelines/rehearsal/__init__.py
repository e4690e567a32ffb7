"""The rehearsal teacher: a scripted stand-in for R1 and GPT-4o behind the OpenAI protocol. It is not a model.

reading.py     what a request asks for: its variant, its kind, the words to repeat
    lexicon.py     harmful or not, by words, for what is not in the bundled set           (words.yaml)
performer.py   a reading and a seed -> reasoning, answer and the truth about both      (phrases.yaml)
faults.py      its settings; which request is slow, refused, hung, cut or truncated
server.py      the same over HTTP, in this process or alone: `saferthoughts rehearse`
"""
