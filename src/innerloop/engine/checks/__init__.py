"""Checks before training: does the algorithm learn from the tasks, and is the loss what its author means?"""
