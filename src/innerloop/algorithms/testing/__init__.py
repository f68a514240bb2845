"""What any algorithm must do: the contract, and its meta-gradient beside finite differences."""
