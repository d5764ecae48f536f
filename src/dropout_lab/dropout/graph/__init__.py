"""The graph of a model: what it computes, the calls of its layers, and the names used for them everywhere."""
