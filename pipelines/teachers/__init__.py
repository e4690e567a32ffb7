"""Teachers: asking a model over the OpenAI protocol, with its limits, its ledger and its servers."""
