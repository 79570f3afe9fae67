"""The report of a training run, in `runs/NAME/report/`: figures of each step, curves, a page, samples.

```
metrics.jsonl    one JSON line a step and one an evaluation: the source of everything below
facts.json       what the page says beside them: configuration, sizes, peak of the hardware, starts
samples.json     a few prompts, answered before the first step and after the last
loss.png         the loss curve
index.html       the page: one file, nothing fetched from elsewhere
tensorboard/     the same figures as TensorBoard events
```
Rank 0 writes it, and nothing of it may end or delay a training: what cannot be written is said in the log and left out.
`python -m falcon_trainer.report RUN_FOLDER` draws curve and page again from the other files, at any time.
"""
