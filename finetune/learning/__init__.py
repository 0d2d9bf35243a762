"""Code that the methods share: state, steps, validation, rollouts and the reward."""
