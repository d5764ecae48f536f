"""Jobs: from a command line to configurations that are checked, and to the processes that run them."""
