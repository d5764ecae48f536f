"""Laws of tables in files: what is read of them, and what is refused in words of the file."""

import numpy as np
import pytest

from dropout_lab.data.table_file import read_index, read_table

X = np.array([[1.0, -2.5, 3e2], [4.0, 5.5, 6.0], [7.0, 8.0, 9.25]])
Y = np.array([[10.0], [11.0], [12.5]])


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def table(path, separator, header):
    lines = [separator.join(map(repr, map(float, row))) for row in np.hstack([X, Y])]
    return written(path, "\n".join([*([separator.join("abcd")] if header else []), *lines]) + "\n")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "   ", ", "])
def test_a_table_is_read_whatever_separates_its_columns_with_names_or_without(tmp_path, separator, header):
    found = read_table(table(tmp_path / "data.txt", separator, header), None, None)
    assert np.array_equal(found.features, X)
    assert np.array_equal(found.targets, Y)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n3,4\n", encoding="utf-8-sig")
    assert read_table(path, "a", None).targets.tolist() == [[1.0], [3.0]]


@pytest.mark.parametrize(
    ("target", "features", "columns"),
    [(None, None, "abc d"), ("b", None, "acd b"), (["d", "a"], None, "bc da"), ("a", ["d", "b"], "db a")],
)
def test_columns_are_chosen_by_name_in_the_order_asked_for(tmp_path, target, features, columns):
    found = read_table(table(tmp_path / "data.csv", ",", True), target, features)
    of = dict(zip("abcd", np.hstack([X, Y]).T, strict=True))
    expected = [np.stack([of[name] for name in names], 1) for names in columns.split()]
    assert np.array_equal(found.features, expected[0])
    assert np.array_equal(found.targets, expected[1])


def test_columns_without_names_are_called_by_number(tmp_path):
    found = read_table(table(tmp_path / "data.csv", ",", False), 0, [3, 1])
    assert np.array_equal(found.targets, X[:, :1])
    assert np.array_equal(found.features, np.hstack([Y, X[:, 1:2]]))


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_an_npz_file_has_x_and_y(tmp_path, shape):
    y = np.arange(float(np.prod(shape))).reshape(shape)
    np.savez(tmp_path / "data.npz", x=X, y=y)
    found = read_table(tmp_path / "data.npz", None, None)
    assert np.array_equal(found.features, X)
    assert np.array_equal(found.targets, y.reshape(3, -1))


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = written(tmp_path / "data.csv", "1,2\n3,4\n")
    read_table(path, None, None)
    written(path, "1,2\n3,4\n5,6\n")
    assert len(read_table(path, None, None).targets) == 3


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,2\nx,4\n", None, "column a, sample 1: x is no finite number; fill in or remove"),
        ("a,b\n1,2\n3,\n", None, "column b, sample 1: nothing is there; fill in"),
        ("a,b\n1,inf\n3,4\n", None, "column b, sample 0: inf is no finite number"),
        ("a,b\n1,2\n", "c", "^data.target=c: .* has no such column; .*it has a, b$"),
        ("age,bmi\n1,2\n", ["bmi", "agee"], "^data.target=agee: .* did you mean 'age'"),
        ("a\n1\n", None, "has one column, and needs features besides the target"),
        ("a,b\n1,2\n3,4,5\n", None, "cannot be read as a table"),
        ("", None, "cannot be read as a table"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_by_column_and_sample(tmp_path, text, target, message):
    with pytest.raises(ValueError, match=message):
        read_table(written(tmp_path / "data.csv", text), target, None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "needs an array y; it has x$"),
        ({"x": X, "y": Y[:2]}, r"must hold x \(N, F\) and y \(N,\) or \(N, k\), and holds x \(3, 3\), y \(2, 1\)"),
        ({"x": X, "y": np.array([1, np.nan, 2])}, r"y\[1, 0\] is nan; all must be finite numbers"),
        ({"x": np.array([object()]), "y": Y}, "cannot be read as npz with arrays of numbers"),
    ],
)
def test_an_npz_file_of_something_else_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "data.npz", None, None)


def test_what_does_not_fit_together_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    with pytest.raises(ValueError, match=r"^data.target, data.features: are for columns with names"):
        read_table(tmp_path / "data.npz", "y", None)
    with pytest.raises(ValueError, match=r"^data.target=a: is one of data.features, too"):
        read_table(table(tmp_path / "data.csv", ",", True), "a", ["a", "b"])
    with pytest.raises(FileNotFoundError, match=r"^data.file=.*none.csv: there is no such file"):
        read_table(tmp_path / "none.csv", None, None)


@pytest.mark.parametrize("text", ["3\n0\n1\n", "3.0 0.0 1.0", "3.000000000000000000e+00\n0\n1\n"])
def test_numbers_of_samples_are_read_in_their_order(tmp_path, text):
    assert read_index(written(tmp_path / "index.txt", text), 4).tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 4", "must hold numbers of samples, 0 to 3, and holds 0 to 4"),
        ("-1 2", "and holds -1 to 2"),
        ("0.5", "and holds 0.5 to 0.5"),
        ("", "and holds none"),
        ("a", "must hold numbers of samples: could not convert"),
        ("1 2 1", "holds the number of a sample twice"),
    ],
)
def test_what_are_no_numbers_of_samples_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_index(written(tmp_path / "index.txt", text), 4)
