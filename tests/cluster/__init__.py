"""The cluster that the demo and the tests run on: `python3 -m tests.cluster --help`.

Everything here needs Python 3.11 and its standard library alone, because it runs before any virtual environment exists.
"""
