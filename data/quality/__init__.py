"""Quality of labels: each rater's accuracy, consistency and habits, agreement, and consensus.

All of it is a function of the tables that are exported, so that it can be computed from a store or
from its Parquet files. Skips and images found unsafe say nothing about good or bad and are omitted.
Answers to a question asked before serve self-consistency alone: they are not independent of the
first ones. Simulated raters and people are never mixed.

Measures and libraries: Wilson's interval of a share (scipy), Krippendorff's alpha (krippendorff;
Krippendorff 2011), Dawid-Skene (crowd-kit; Dawid and Skene 1979).
"""
