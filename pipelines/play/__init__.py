"""The playground: its stage, its page, and the studio that draws for visitors."""
