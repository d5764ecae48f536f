"""Layer names, as every plot and every file has them: `03_features_3`, `04_relu_call2`, `00_input`."""

import re


def layer_name(index: int, count: int, path: str, number: int = 1) -> str:
    """The name of one call of a layer.

    Args:
        index: of the call among all calls of leaf modules of the bare model, from 0.
        count: how many calls there are; the index has 2 digits, or 3 in a model with 100 calls.
        path: of the module, `features.3`.
        number: 1 for the first call of the module in a forward pass, 2 for the second.
    """
    digits = max(2, len(str(count)))
    suffix = f"_call{number}" if number > 1 else ""
    return f"{index:0{digits}d}_{re.sub('[^A-Za-z0-9_]', '_', path)}{suffix}"
