"""The smoke evaluation: the prompts that prepare stored, asked of the endpoint once it is rolled out.

It shows whether the training came through to what clients are answered: the same prompts were put to the base before
the first step. It speaks OpenAI's plain API, so that any engine behind the endpoint may answer.
"""
