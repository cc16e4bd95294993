"""Other ways to the same end, measured with the same clients: each module is one small program."""
