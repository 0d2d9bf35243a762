"""The playground: a page on which people try the models of a run."""
