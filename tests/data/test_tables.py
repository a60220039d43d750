"""Tables of pictures, as on the Hugging Face hub: every row is read right, or named."""

import pytest

import smoothinfer as si
from tests.data.conftest import encoded, flat

RED = encoded(flat((255, 0, 0)))


@pytest.fixture(scope="module")
def write_table(tmp_path_factory):
    """Write a folder of Parquet files; the library's own copies go to a temporary folder."""
    import datasets

    root, told = tmp_path_factory.mktemp("tables"), datasets.is_progress_bar_enabled()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = root / "copies"
    datasets.disable_progress_bars()

    def write(name, kinds=features, **splits):
        (root / name).mkdir()
        for split, (pictures, labels) in splits.items():
            rows = {"image": pictures, "label": labels}
            table = datasets.Dataset.from_dict(rows, features=kinds)
            table.to_parquet(root / name / f"{split}-00000-of-00001.parquet")
        return str(root / name)

    yield write
    datasets.config.HF_DATASETS_CACHE = before
    if told:
        datasets.enable_progress_bars()


def test_rows_keep_their_pixels_and_labels(write_table, cache):
    reds = [encoded(flat((i, 0, 0))) for i in (5, 6, 7)]
    folder = write_table("good", train=(reds[:1], [0]), validation=(reds, [1, 0, 1]))
    for _ in range(2):
        data = si.load_data(folder, "validation")
        assert data.pixels[:, 0, 0, 0].tolist() == [5, 6, 7]
        assert data.labels.tolist() == [1, 0, 1]
        assert data.classes == ("cat", "dog")
        assert data.name == "good"
    assert len(list(cache.glob("*.npy"))) == 1
    with pytest.raises(si.InputError, match="has no split 'test', only validation, train"):
        si.load_data(folder)


@pytest.mark.parametrize(
    ("name", "pictures", "labels", "message"),
    [
        ("no label", [RED, RED], [0, None], "row 1 of the test split .* has no label"),
        ("no labels", [RED, RED], [-1, -1], "row 0 of the test split .* has no label"),
        ("no picture", [RED, None], [0, 1], "row 1 of the test split .* has no picture"),
        ("broken", [RED, b"oops"], [0, 1], "picture 1 of the test split .* cannot be read"),
        ("empty", [RED, b""], [0, 1], "row 1 of the test split .* has no picture"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(name, pictures, labels, message, write_table):
    rows = [None if each is None else {"bytes": each, "path": None} for each in pictures]
    folder = write_table(name, test=(rows, labels))
    with pytest.raises(si.InputError, match=message) as refused:
        si.load_data(folder)
    assert "\n" not in str(refused.value)


def test_a_table_without_labels_and_a_folder_of_nothing_are_refused_in_one_line(
    write_table, tmp_path
):
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    (tmp_path / "nothing").mkdir()
    for source, message in (
        (write_table("plain", kinds, test=([RED], [0])), r"label \(Value.*cast"),
        (str(tmp_path / "nothing"), "cannot load"),
    ):
        with pytest.raises(si.InputError, match=message) as refused:
            si.load_data(source)
        assert "\n" not in str(refused.value)
