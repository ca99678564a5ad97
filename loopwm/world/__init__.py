"""World models: an environment's next observation, reward and termination, predicted."""
