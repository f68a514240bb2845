"""Meta-reinforcement learning: environments, policies, collection of trajectories, and the outer steps."""
