"""Maps of faults: where raters would mark an image, by a head on CLIP's patches."""
