"""One conformance suite for everything that is a byte stream.

A case (`cases_*`) is written once. It runs in each style (`styles_*`), over each transport (`transports`) and each
poller of the platform, as a conversation (`conversation`) of our socket with a raw peer (`peers`). `matrix` lists the
combinations and takes a sample of them; `test_matrix` runs it.
"""
