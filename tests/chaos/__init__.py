"""Seeded chaos: clients work, everything around them breaks, and then the books are checked.

`make chaos SEED=n MINUTES=m`, or `python -m tests.chaos --seed N --minutes M [--out FILE]`.
"""
