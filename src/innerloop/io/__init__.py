"""Files and text: reading what others wrote, writing whole or not at all, numbers in words."""
