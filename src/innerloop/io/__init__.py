"""Files and text: reading untrusted files, atomic writing, formatting of text and numbers."""
