"""The raters' part: the HTTP interface, its answers, its images and its words."""
