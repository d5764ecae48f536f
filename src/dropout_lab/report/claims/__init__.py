"""Claims of an experiment in the report: what was stated before the runs, what came out, and pictures of both."""
