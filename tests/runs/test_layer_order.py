from dropout_lab.runs.layer_order import in_depth_order, natural


def test_layers_are_in_call_order_with_inputs_before_outputs():
    names = ["100_fc", "08_dropout", "00_conv", "08_dropout_in", "00_input", "09_x_call2", "99_relu", "00_input_in"]
    ordered = ["00_input_in", "00_input", "00_conv", "08_dropout_in", "08_dropout", "09_x_call2", "99_relu", "100_fc"]
    assert in_depth_order(names) == ordered


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["sweep/10", "sweep/2", "a"], key=natural) == ["a", "sweep/2", "sweep/10"]
