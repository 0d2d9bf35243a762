"""Quality of labels: each rater's accuracy, consistency and habits, agreement, and consensus.

All measures are functions of the exported tables, so they can be computed from a store or from its
Parquet files. Skips and reports say nothing about good or bad and are omitted. Answers to repeated
tasks count for self-consistency only: they depend on the first answers. Simulated raters and people
are never mixed.

Measures and libraries: Wilson's interval of a share (scipy), Krippendorff's alpha (krippendorff;
Krippendorff 2011), Dawid-Skene (crowd-kit; Dawid and Skene 1979).
"""
