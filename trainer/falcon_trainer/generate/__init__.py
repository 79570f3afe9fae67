"""The recipe's inference step: the base, the adapter or the merged model of a run answers prompts, without a server.

`command` is its command line and imports neither torch nor transformers, `answering` is its use from Python.
"""
