"""The benchmarks: dangagreen and its peers, measured in one run. `python -m tests.bench --help` in a checkout."""
