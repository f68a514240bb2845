"""Checks for any algorithm: the contract, and a comparison of its meta-gradient with finite differences."""
