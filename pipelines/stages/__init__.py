"""The stages, one module each. They run in this order.

1. `images` draws images of the prompts.
2. `label` (with `rater`), `simulate` or `import` (import_feedback) collects labels.
3. `dataset`, `inspect` (inspect_labels) and `export` (export_feedback) look at the labels and pass
   them on.
4. `reward` trains on the labels; `score` and `best-of-n` use what it learned.
5. `finetune` tunes the model on the reward.
6. `evaluate` compares the models, and `report` writes the page on it.
7. `compare` plans comparisons of the models by people; `compare-plan` says how many are needed,
   and `compare-report` what they tell. `play` serves the models in a browser.

All in one, `rounds` goes through them once for each round of labeling, and `demo` runs the story
from end to end.
"""
