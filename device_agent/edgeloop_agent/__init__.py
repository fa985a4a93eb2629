"""The agent that runs on the board: standard library, numpy, and one inference runtime. Python 3.9 and later."""
