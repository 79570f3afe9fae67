"""The endpoint: an OpenAI-compatible API in front of `transformers serve`.

The engine runs as a child process on the loopback. Our layer checks what the engine would ignore or stumble over
(names, numbers, lengths), asks it for one answer at a time, always as a stream, and speaks OpenAI's protocol outside.
"""
