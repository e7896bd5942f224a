"""Pictures and pages: the right place, the right way up, true proportions, nothing fetched."""

import math
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sciSR.evaluation import ScoreTable, WaldResult, evaluate, wald
from sciSR.grid import Grid
from sciSR.raster import Block, Metadata, Raster, Window
from sciSR.regrid import regrid
from sciSR.report import draw_picture, write_html
from sciSR.report.picture import _bar, _cuts, _error_columns
from sciSR.report.views import Cut, anatomy, cut, detail, moved, scene_views, volume_views

RNG = np.random.default_rng(0)
CUBE = 24


def rotation(degrees: float) -> NDArray[np.float64]:
    a = math.radians(degrees)
    return np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])


def head(matrix: NDArray[np.float64]) -> Raster:
    """A ball with a bright spot towards the patient's right, front and top, on voxel axes along ``matrix``."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ np.full(3, (CUBE - 1) / 2)
    index = np.stack(np.meshgrid(*[np.arange(CUBE)] * 3, indexing="ij"), axis=-1)[..., ::-1]
    world = index @ matrix.T + affine[:3, 3]
    values = np.where(np.linalg.norm(world, axis=-1) < 10, 100.0, 0.0)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        plane = 3 - a - b
        near = (np.abs(world[..., plane]) < 4) & (world[..., a] > 2) & (world[..., b] > 2)
        values[near & (values > 0)] = 1000
    return Raster.from_array(values.astype(np.float32), affine=affine, axes="zyx", name="head")


AFFINES = {
    "RAS": np.diag([1.0, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1]),
    "LPI": np.diag([-1.0, -1, -1]),
    "permuted": np.array([[0, 0, 1.0], [-1, 0, 0], [0, 1, 0]]),
    "oblique": rotation(20) @ np.diag([-1.0, 1, 1]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_right_front_and_top_lie_left_and_up_whatever_the_voxel_order(name: str) -> None:
    raster = head(AFFINES[name])
    for view, letters in zip(volume_views(raster), ("RLAP", "RLSI", "APSI"), strict=True):
        assert "".join(view.letters or ()) == letters
        image = cut(raster, view).image
        bright = np.argwhere(image == 1000).mean(axis=0) + 0.5
        assert bright[0] < image.shape[0] / 2 - 1, (name, view.title)
        assert bright[1] < image.shape[1] / 2 - 1, (name, view.title)


def test_anatomy_names_the_nearest_direction_of_oblique_axes() -> None:
    assert anatomy(head(AFFINES["oblique"]).grid) == {"R": ("x", False), "A": ("y", True), "S": ("z", True)}
    assert anatomy(head(AFFINES["permuted"]).grid) == {"R": ("z", True), "A": ("x", False), "S": ("y", True)}


def test_planes_go_through_the_centre_of_the_foreground() -> None:
    values = np.zeros((40, 40, 40), np.float32)
    values[4:14, 20:30, 28:38] = 1
    axial, coronal, sagittal = volume_views(Raster.from_array(values, affine=np.eye(4), axes="zyx"))
    assert 4 <= axial.window["z"][0] * 40 <= 14
    assert 20 <= coronal.window["y"][0] * 40 <= 30
    assert 28 <= sagittal.window["x"][0] * 40 <= 38


def test_lengths_are_millimetres() -> None:
    raster = Raster.from_array(np.zeros((5, 10, 20), np.float32), affine=np.diag([0.5, 2, 6, 1]), axes="zyx")
    sizes = [(cut(raster, view).height, cut(raster, view).width) for view in volume_views(raster)]
    assert sizes == [(20, 10), (30, 10), (30, 20)]


def test_the_same_place_is_cut_from_a_refined_and_from_a_cropped_grid() -> None:
    ramp = np.broadcast_to(np.arange(30.0)[:, None, None], (30, 20, 20)).copy()
    raster = Raster.from_array(ramp, affine=np.diag([1, 1, 3, 1.0]), axes="zyx")
    axial = volume_views(raster)[0]
    shown = cut(raster, axial).image[0, 0]
    fine = regrid(raster, (60, 40, 40), kernel="nearest")
    assert cut(fine, axial).image[0, 0] == shown
    part = raster.crop(z=slice(5, 28), y=slice(4, 16))
    assert cut(part, moved(axial, raster.grid, part.grid)).image[0, 0] == shown
    beyond = raster.crop(z=slice(0, 3))
    assert cut(beyond, moved(axial, raster.grid, beyond.grid)).image[0, 0] == 2


def test_a_detail_keeps_its_place_in_a_crop() -> None:
    values = np.zeros((1, 100, 100))
    values[0, 40:52, 60:72] = RNG.normal(size=(12, 12))
    raster = Raster.from_array(values, affine=np.eye(3), axes="cyx")
    zoom = detail(raster, scene_views(raster)[0])
    assert cut(raster, zoom).image.std() > 0.2
    part = raster.crop(y=slice(10, 90), x=slice(20, 100))
    np.testing.assert_array_equal(cut(part, moved(zoom, raster.grid, part.grid)).image, cut(raster, zoom).image)


class Counting:
    """An array that counts what is read of it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.read_values = array, 0
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.shape

    def read(self, window: Window) -> Block:
        values = self.array[window]
        self.read_values += values.size
        return Block(values)

    def stream(self) -> Any:
        raise AssertionError("the whole raster was asked for")


def test_only_what_is_drawn_is_read(tmp_path: Path) -> None:
    array = RNG.random((60, 64, 68), np.float32)
    raster = Raster.from_array(array, affine=np.eye(4), axes="zyx")
    source = Counting(array)
    counted = raster.replace(source=source)
    draw_picture(tmp_path / "a.png", input=counted, cubic=None, result=counted, dpi=50)
    assert 0 < source.read_values < 15 * 68 * 64 + 2 * 68 * 64


def scene(count: int, names: tuple[str, ...] | None = None, colours: tuple[int, ...] | None = None) -> Raster:
    raster = Raster.from_array(
        RNG.random((count, 8, 8)), affine=[[10, 0, 0], [0, -10, 80], [0, 0, 1]], axes="cyx", channels=names
    )
    if colours is None:
        return raster
    return raster.replace(metadata=Metadata("GeoTIFF", raster.grid, MappingProxyType({"colors": colours})))


@pytest.mark.parametrize(
    ("raster", "channels"),
    [
        (scene(4, ("B02", "B03", "B04", "B08")), (2, 1, 0)),
        (scene(3, ("SR_B2", "SR_B3", "SR_B4")), (2, 1, 0)),
        (scene(4, ("blue", "green", "red", "nir")), (2, 1, 0)),
        (scene(4, ("Red", "Green", "Blue", "NIR")), (0, 1, 2)),
        (scene(4, None, (1, 3, 4, 5)), (1, 2, 3)),
        (scene(6), (0, 1, 2)),
        (scene(2), (0,)),
        (scene(1), (0,)),
    ],
)
def test_colours_come_from_interpretation_then_names_then_order(raster: Raster, channels: tuple[int, ...]) -> None:
    assert scene_views(raster)[0].channels == channels


def test_degrees_are_drawn_as_metres() -> None:
    raster = Raster.from_array(np.zeros((1, 100, 100)), affine=np.eye(3), axes="cyx")
    grid = Grid((100, 100), np.array([[0.001, 0, 7], [0, -0.001, 60.05], [0, 0, 1]]), frame="EPSG:4326", unit="degree")
    seen = cut(raster.replace(grid=grid), scene_views(raster.replace(grid=grid))[0])
    assert seen.unit == "m"
    assert seen.height == pytest.approx(11132, rel=1e-3)
    assert seen.width == pytest.approx(11132 * math.cos(math.radians(60)), rel=1e-3)


@pytest.mark.parametrize(
    ("width", "unit", "words"),
    [(160, "mm", "50 mm"), (59, "mm", "10 mm"), (2560, "m", "500 m"), (9000, "m", "2 km"), (0.4, "mm", "0.1 mm")],
)
def test_scale_bars_are_round_and_at_most_a_third(width: float, unit: str, words: str) -> None:
    length, shown = _bar(Cut(np.zeros((2, 2)), 1, width, unit))
    assert shown == words
    assert length <= width / 3


def judged(raster: Raster) -> WaldResult:
    return wald(raster, "cubic", scale=2, sensor="generic-gaussian", baselines=("nearest",))


def test_error_panels_show_the_absolute_difference() -> None:
    raster = head(AFFINES["LPS"])
    found = judged(raster)
    views = volume_views(raster)
    columns = _error_columns(found)
    assert [column.title for column in columns] == ["truth", "nearest", "cubic"]
    best = max(found.outputs, key=lambda name: found.table.value(name, "psnr"))
    assert [column.title for column in columns if column.best] == [best]
    cuts = _cuts(views, columns, raster)
    expected = np.abs(cut(found.outputs["nearest"], views[0]).image - cut(found.truth, views[0]).image)
    np.testing.assert_array_equal(cuts[0, 1].image, expected)
    assert expected.max() > 0


def rasters() -> dict[str, Raster]:
    volume = head(AFFINES["oblique"])
    values = volume.read().values
    holed = RNG.random((3, 40, 30)) * 1000
    holed[:, :20, :9] = np.nan
    return {
        "volume": volume,
        "series": Raster.from_array(np.stack([values, values]), affine=np.eye(4), axes="tzyx", name="series"),
        "scene": Raster.from_array(holed, affine=[[10, 0, 0], [0, -10, 400], [0, 0, 1]], axes="cyx", crs="EPSG:32618"),
        "one band": Raster.from_array(holed[:1], affine=np.eye(3), axes="cyx"),
        "no channel axis": Raster.from_array(holed[0], affine=np.eye(3), axes="yx"),
        "constant": Raster.from_array(np.ones((1, 20, 20)), affine=np.eye(3), axes="cyx"),
    }


@pytest.mark.parametrize("name", rasters())
def test_pictures_of_every_kind(name: str, tmp_path: Path) -> None:
    raster = rasters()[name]
    fine = regrid(raster, tuple(2 * n for n in raster.grid.shape), kernel="cubic")
    found = judged(raster)
    for label, trust in (("with", found), ("without", None)):
        path = draw_picture(tmp_path / f"{label}.png", input=raster, cubic=fine, result=fine, wald=trust, dpi=60)
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width > 500
            assert len(set(image.convert("L").tobytes())) > 20
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["with.png", "without.png"]


def test_the_same_picture_has_the_same_bytes(tmp_path: Path) -> None:
    raster = head(AFFINES["RAS"])
    one, two = (
        draw_picture(tmp_path / f"{i}.png", input=raster, cubic=None, result=raster, dpi=50).read_bytes() for i in "12"
    )
    assert one == two


class Page(HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_holds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    raster = head(AFFINES["LPS"]).replace(name="<b>&head")
    found = judged(raster)
    picture = draw_picture(tmp_path / "a.png", input=raster, cubic=None, result=raster, wald=found, dpi=50)
    path = write_html(
        tmp_path / "a.html",
        input=raster,
        result=regrid(raster, (48, 24, 24)),
        picture=picture,
        table=found.table,
        consistency=0.0123,
        settings={"upscale": {"scale": {"z": 2}, "tile": None}, "seed": 0},
        record={"versions": {"sciSR": "x<y"}},
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"]
    assert "http" not in text.replace(page.sources[0], "")
    assert "Not for diagnosis" in page.words
    assert "<b>&head" in page.words
    assert "x<y" in page.words
    assert "1.23 %" in page.words
    assert "x L, y P, z S" in page.words
    assert "z × 2" in page.words
    for row in found.table.rows:
        assert f"{row.values['psnr']:.2f}" in page.words


def test_the_best_of_each_column_is_marked(tmp_path: Path) -> None:
    raster = Raster.from_array(RNG.random((1, 20, 20)), affine=np.eye(3), axes="cyx")
    worse = Raster.from_array(raster.read().values + 0.5, affine=np.eye(3), axes="cyx")
    table = evaluate({"right": raster, "wrong": worse}, reference=raster, data_range=1)
    path = write_html(tmp_path / "a.html", input=raster, result=raster, table=table)
    rows = path.read_text(encoding="utf-8").split("<tr>")
    right, wrong = (next(row for row in rows if f"<td>{name}</td>" in row) for name in ("right", "wrong"))
    assert right.count('class="n best"') == len(table.metrics)
    assert "best" not in wrong


def test_several_subjects_show_their_intervals(tmp_path: Path) -> None:
    tables = []
    for seed in (1, 2):
        raster = Raster.from_array(
            np.random.default_rng(seed).random((1, 20, 20)), affine=np.eye(3), axes="cyx", name=f"s{seed}"
        )
        tables.append(evaluate(regrid(raster, (20, 20)), reference=raster, data_range=1))
    path = write_html(tmp_path / "a.html", input=raster, result=raster, table=ScoreTable.join(tables))
    assert "mean of 2" in path.read_text(encoding="utf-8")
