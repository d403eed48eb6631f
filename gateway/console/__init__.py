"""The web console of the demo: a map of the world, the decision for each territory, a question and its attempts."""
