"""What lies in the folder of a prepared data set, beside the documents and rows that `store` describes.

```
documents.arrow rows.arrow              the records that are trained on
validation/documents.arrow rows.arrow   those that are held out, where the spec asks for it
chat_template.jinja                     where the format has one (tokenization.TEMPLATE)
prompts.json                            a few records: what the merged model is checked with, and the report's samples
statistics.json                         see data/statistics.py
tokenizer.json                          the base model's, so that the folder can be looked into by itself
```
"""

KIND = "dataset"
VALIDATION = "validation"
PROMPTS = "prompts.json"
STATISTICS = "statistics.json"
TOKENIZER = "tokenizer.json"

DOWNLOADS = "sources"
"""Beside this folder: what was fetched of remote sources."""
