"""DICOM series made from a real CT, judged by ITK."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from sciSR.errors import FormatError, GeometryError, InputError, MetadataWarning
from sciSR.io import adapter_for, open_raster, save_raster
from sciSR.regrid import regrid
from tests.format_table import Row, check_table

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

RNG = np.random.default_rng(9)
ROW = np.array([0.96, 0.28, 0.0])
COLUMN = np.array([-0.28, 0.96, 0.0])
NORMAL = np.cross(ROW, COLUMN)


def hounsfield(shape: tuple[int, int, int] = (6, 10, 12)) -> NDArray[np.int16]:
    """A volume of CT values (z, y, x)."""
    return RNG.normal(40, 300, shape).clip(-1024, 3071).astype(np.int16)


def write_series(folder: Path, values: NDArray[Any], **more: Any) -> Path:
    """A series of one file a slice, named out of order; a list among ``more`` gives each slice its own value."""
    folder.mkdir(exist_ok=True)
    uid, step = more.pop("SeriesInstanceUID", generate_uid()), more.pop("step", NORMAL * 2.5)
    places, orientations = more.pop("places", None), more.pop("orientations", [])
    stored_type = np.uint16 if not more.get("PixelRepresentation", 0) else np.int16
    intercept = float(more.get("RescaleIntercept", -1024))
    slope = more.get("RescaleSlope", 1)
    for z, plane in enumerate(values):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = folder / f"{(z * 7) % 31:03d}_{more.get('SeriesNumber', 3)}.dcm"
        ds = FileDataset(str(name), {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID, uid
        ds.Modality, ds.SeriesNumber, ds.SeriesDescription, ds.InstanceNumber = "CT", 3, "thorax", z + 1
        ds.PatientName, ds.PatientID, ds.StudyDate, ds.StudyInstanceUID = "Doe^Jane", "4711", "20260102", generate_uid()
        ds.Manufacturer, ds.KVP, ds.ConvolutionKernel = "ACME", 120, "B30f"
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelSpacing, ds.SliceThickness = [0.8, 0.7], 3
        ds.ImageOrientationPatient = [*ROW, *COLUMN]
        ds.ImagePositionPatient = [float(v) for v in np.array([-90, -126, 72]) + z * np.asarray(step)]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = intercept, slope, "HU"
        if places is not None:
            ds.ImagePositionPatient = places[z]
        if z < len(orientations):
            ds.ImageOrientationPatient = orientations[z]
        for key, value in more.items():
            each = value[z] if isinstance(value, list) and len(value) == len(values) and key not in _VECTORS else value
            if each is None:
                delattr(ds, key)
            else:
                setattr(ds, key, each)
        stored = np.rint((plane - float(ds.get("RescaleIntercept", 0))) / float(ds.get("RescaleSlope", 1)))
        ds.PixelData = stored.astype(stored_type).tobytes()
        ds.save_as(name)
    return folder


_VECTORS = ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")


def write_enhanced(path: Path, values: NDArray[Any], **more: Any) -> Path:
    """All slices as frames of one enhanced file, the odd ones before the even ones."""
    path.parent.mkdir(exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality, ds.SeriesNumber = generate_uid(), generate_uid(), "CT", 3
    ds.PatientName, ds.PatientID, ds.StudyDate = "Doe^Jane", "4711", "20260102"
    ds.NumberOfFrames, ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    order = [*range(1, len(values), 2), *range(0, len(values), 2)]
    measures, plane, times = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 3
    plane.ImageOrientationPatient = [*ROW, *COLUMN]
    times.EffectiveEchoTime = 12.0
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence, shared.MREchoSequence = [measures], [plane], [times]
    ds.SharedFunctionalGroupsSequence, frames = [shared], []
    slopes = more.pop("slopes", [1] * len(values))
    for z in order:
        place, meaning, frame = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [float(v) for v in np.array([-90, -126, 72]) + z * NORMAL * 2.5]
        meaning.RescaleIntercept, meaning.RescaleSlope, meaning.RescaleType = -1024, slopes[z], "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [meaning]
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    planes = [np.rint((values[z] + 1024.0) / slopes[z]).astype(np.uint16) for z in order]
    ds.PixelData = np.stack(planes).tobytes()
    for key, value in more.items():
        setattr(ds, key, value)
    ds.save_as(path)
    return path


def itk_series(folder: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Values and RAS centre affine as ITK reads the series."""
    itk = pytest.importorskip("SimpleITK")
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    lps = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = lps @ np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = lps @ image.GetOrigin()
    return itk.GetArrayFromImage(image), affine


def test_values_and_geometry_are_what_itk_finds(tmp_path: Path) -> None:
    values = hounsfield()
    raster = open_raster(write_series(tmp_path / "ct", values))
    found, affine = itk_series(tmp_path / "ct")
    assert np.array_equal(raster.read().values, values)
    assert np.array_equal(found, values)
    assert np.allclose(raster.grid.center_affine, affine, atol=1e-5)
    assert raster.dtype == np.int16
    assert raster.unit == "HU"
    assert raster.grid.spacing == pytest.approx({"z": 2.5, "y": 0.8, "x": 0.7})


def test_a_real_ct_survives(tmp_path: Path, crops: Path) -> None:
    source = nib.load(crops / "ct_chest_crop.nii.gz").slicer[40:100, 50:90, 10:22]
    values = np.asarray(source.dataobj).T.clip(-1024, 3071)
    lps = np.diag([-1.0, -1, 1, 1]) @ source.affine
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = lps[:3, :3] / lengths
    step = lps[:3, 2] * np.sign(np.dot(np.cross(cosines[:, 0], cosines[:, 1]), lps[:3, 2]))
    folder = write_series(
        tmp_path / "ct", values, PixelSpacing=[lengths[1], lengths[0]], step=step,
        ImageOrientationPatient=[float(round(v, 6)) for v in (*cosines[:, 0], *cosines[:, 1])],
    )  # fmt: skip
    found, affine = itk_series(folder)
    out = nib.load(save_raster(open_raster(folder), tmp_path / "ct.nii.gz"))
    assert np.array_equal(np.asarray(out.dataobj).T, found)
    assert np.allclose(out.affine, affine, atol=1e-4)


def test_a_refined_series_becomes_nifti_in_scanner_space_with_a_sidecar_without_names(tmp_path: Path) -> None:
    raster = open_raster(write_series(tmp_path / "ct", hounsfield(), RepetitionTime=2500.0))
    fine = regrid(raster, (12, 20, 24), kernel="linear")
    out = save_raster(fine, tmp_path / "fine.nii.gz")
    header = nib.load(out).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert header.get_data_dtype() == np.int16
    assert open_raster(out).grid.same_space(raster.grid)
    text = (tmp_path / "fine.json").read_text()
    for secret in ("Doe", "4711", "2026"):
        assert secret not in text
        assert secret.encode() not in out.read_bytes()
    for told in ('"Manufacturer": "ACME"', '"SliceThickness": 1.25', '"RepetitionTime": 2.5', '"ConvolutionKernel"'):
        assert told in text


def test_one_file_stands_for_its_series(tmp_path: Path) -> None:
    values = hounsfield()
    folder = write_series(tmp_path / "study", values)
    write_series(folder, hounsfield((4, 5, 5)), SeriesNumber=8)
    first = next(folder.glob("*_3.dcm"))
    assert np.array_equal(open_raster(first).read().values, values)


def test_several_series_are_listed_and_one_can_be_named(tmp_path: Path) -> None:
    values, uid = hounsfield((4, 5, 5)), generate_uid()
    folder = write_series(tmp_path / "study", hounsfield())
    write_series(folder, values, SeriesNumber=8, SeriesDescription="lung", SeriesInstanceUID=uid)
    with pytest.raises(
        FormatError, match=r"study: 2 series .*3 'thorax', 6 images; 8 'lung', 4 images\); pass series="
    ):
        open_raster(folder)
    for series in (8, "8", str(uid)):
        assert np.array_equal(open_raster(folder, series=series).read().values, values)
    with pytest.raises(FormatError, match="series 9 names 0 of its series"):
        open_raster(folder, series=9)


def test_the_frames_of_an_enhanced_file_are_its_slices(tmp_path: Path) -> None:
    values = hounsfield()
    single = open_raster(write_series(tmp_path / "slices", values))
    for path in (write_enhanced(tmp_path / "ct" / "all.dcm", values), tmp_path / "ct"):
        raster = open_raster(path)
        assert np.array_equal(raster.read().values, values)
        assert np.array_equal(raster.read((slice(2, 4), slice(1, 5), slice(3, 4))).values, values[2:4, 1:5, 3:4])
        assert np.allclose(raster.grid.affine, single.grid.affine, atol=1e-6)
        assert raster.unit == "HU"
        assert raster.dtype == np.int16
        assert pickle.loads(pickle.dumps(raster.source)).read((slice(1, 2),) * 3).values == values[1, 1, 1]
    save_raster(raster, tmp_path / "a.nii.gz")
    text = (tmp_path / "a.json").read_text()
    assert '"EchoTime": 0.012' in text
    assert not any(secret in text for secret in ("Doe", "4711", "2026"))


def test_compressed_frames(tmp_path: Path) -> None:
    values = hounsfield()
    path = write_enhanced(tmp_path / "all.dcm", values)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    assert np.array_equal(open_raster(path).read().values, values)


def test_a_file_of_frames_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = open_raster(write_enhanced(tmp_path / "all.dcm", hounsfield()))
    opened: list[str] = []
    read = pydicom.dcmread

    def counted(path: str, **more: Any) -> Any:
        opened.append(path)
        return read(path, **more)

    monkeypatch.setattr(pydicom, "dcmread", counted)
    raster.read()
    assert len(opened) == 1


def test_frames_may_differ_in_slope(tmp_path: Path) -> None:
    values = hounsfield() // 2 * 2
    raster = open_raster(write_enhanced(tmp_path / "all.dcm", values, slopes=[1, 2, 1, 2, 0.5, 1]))
    assert raster.dtype == np.float32
    assert np.array_equal(raster.read().values, values)


def test_frames_with_a_gap_are_refused(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "all.dcm", hounsfield())
    ds = pydicom.dcmread(path)
    frames = ds.PerFrameFunctionalGroupsSequence
    ds.PerFrameFunctionalGroupsSequence = [*frames[:4], *frames[5:]]
    ds.save_as(path)
    with pytest.raises(GeometryError, match=r"1 slice\(s\) missing"):
        open_raster(path)


def test_windows_from_several_threads_and_processes(tmp_path: Path) -> None:
    values = hounsfield((30, 10, 12))
    source = pickle.loads(pickle.dumps(open_raster(write_series(tmp_path / "ct", values)).source))
    starts = RNG.integers(0, 25, 40)
    with ThreadPoolExecutor(6) as pool:
        blocks = pool.map(lambda z: source.read((slice(z, z + 5), slice(2, 9), slice(0, 7))).values, starts)
        for z, block in zip(starts, blocks, strict=True):
            assert np.array_equal(block, values[z : z + 5, 2:9, :7])
    parts = [block.values for _, block in source.stream()]
    assert np.array_equal(np.concatenate(parts), values)


@pytest.mark.parametrize(
    ("more", "dtype"),
    [
        ({}, "int16"),
        ({"RescaleIntercept": 0, "BitsStored": 16, "HighBit": 15}, "uint16"),
        ({"BitsStored": 16, "HighBit": 15}, "int32"),
        ({"RescaleIntercept": 0, "PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}, "int16"),
        ({"RescaleSlope": 0.5}, "float32"),
        ({"RescaleSlope": [1.0, 0.5, 2.0, 1.0, 1.0, 1.0]}, "float32"),
    ],
)
def test_the_type_holds_every_value(tmp_path: Path, more: dict[str, Any], dtype: str) -> None:
    values = np.abs(hounsfield()) // 2 * 2
    raster = open_raster(write_series(tmp_path / "ct", values, **more))
    assert raster.dtype == np.dtype(dtype)
    assert np.allclose(raster.read().values, values)


def test_padding_is_no_value_and_comes_back(tmp_path: Path) -> None:
    values = np.maximum(hounsfield(), -1000)
    values[:, :3] = -1024
    raster = open_raster(write_series(tmp_path / "ct", values, PixelPaddingValue=0))
    block = raster.read()
    assert block.valid is not None
    assert not block.valid[:, :3].any()
    out = np.asarray(nib.load(save_raster(regrid(raster, (12, 20, 24)), tmp_path / "a.nii.gz")).dataobj).T
    assert (out[:, :6] == -1024).all()
    assert (out[:, 6:] != -1024).all()


def test_compressed_slices(tmp_path: Path) -> None:
    values = hounsfield()
    folder = write_series(tmp_path / "ct", values)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file)
    assert np.array_equal(open_raster(folder).read().values, values)


def test_one_slice_takes_its_thickness(tmp_path: Path) -> None:
    with pytest.warns(MetadataWarning, match="one slice; its thickness, 3 mm, was taken as spacing"):
        raster = open_raster(write_series(tmp_path / "ct", hounsfield((1, 10, 12))))
    assert raster.grid.spacing["z"] == pytest.approx(3.0)
    with pytest.raises(GeometryError, match="one slice, and no SliceThickness"):
        open_raster(write_series(tmp_path / "flat", hounsfield((1, 10, 12)), SliceThickness=None))


def test_a_tilted_gantry_is_told_with_its_angle(tmp_path: Path) -> None:
    step = NORMAL * 2.5 + COLUMN * 2.5 * np.tan(np.radians(15))
    folder = write_series(tmp_path / "ct", hounsfield(), step=step, GantryDetectorTilt=15)
    with pytest.raises(GeometryError, match=r"ct: the gantry was tilted by 15\.0 degrees \(GantryDetectorTilt 15"):
        open_raster(folder)


def positions(*along: float, digits: int = 6) -> list[list[float]]:
    """First-pixel positions at these distances along the stack."""
    return [[round(float(v), digits) for v in np.array([-90, -126, 72]) + d * NORMAL] for d in along]


def test_positions_rounded_to_a_hundredth_are_neither_tilted_nor_uneven(tmp_path: Path) -> None:
    turned = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    row, column = turned[:, 0], turned[:, 1]
    places = [[round(float(v), 2) for v in 1.23 * z * np.cross(row, column)] for z in range(40)]
    folder = write_series(
        tmp_path / "mr", hounsfield((40, 10, 12)), places=places, ImageOrientationPatient=[*row, *column]
    )
    assert open_raster(folder).grid.spacing["z"] == pytest.approx(1.23, abs=1e-3)


@pytest.mark.parametrize(
    ("along", "message"),
    [
        ((0, 2.5, 5, 10, 12.5, 15), r"1 slice\(s\) missing, 1 of them between .* and .* mm along the stack"),
        ((0, 2.5, 10, 12.5, 15, 20), r"3 slice\(s\) missing, 2 of them"),
        ((0, 2.5, 5, 8.5, 11, 13.5), r"slices 2\.5 mm apart, but 3\.5 mm between"),
    ],
)
def test_missing_and_uneven_slices_are_told_where(tmp_path: Path, along: tuple[float, ...], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        open_raster(write_series(tmp_path / "ct", hounsfield(), places=positions(*along)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"EchoTime": [10.0, 20.0] * 3}, "6 of 6 images share their place with another, they differ in EchoTime"),
        ({}, "they are copies, by their headers"),
    ],
)
def test_several_images_of_one_place_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        open_raster(write_series(tmp_path / "ct", hounsfield(), places=positions(0, 0, 2.5, 2.5, 5, 5), **more))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"NumberOfFrames": 4}, FormatError, "several frames in one file that does not say where they lie"),
        ({"BitsAllocated": 1, "BitsStored": 1}, FormatError, "single bits, a segmentation"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            FormatError,
            "RGB images; expected one grey value",
        ),
        ({"ImagePositionPatient": None}, FormatError, "without ImagePositionPatient; expected cross-sections"),
        ({"PixelSpacing": None}, FormatError, "without PixelSpacing"),
        ({"Modality": ["CT"] * 5 + ["PT"]}, FormatError, r"Modality differs between its images \(CT: 5, PT: 1\)"),
        ({"Rows": [10] * 5 + [9]}, FormatError, r"Rows differs between its images \(10: 5, 9: 1\); split the series"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, GeometryError, "is not two unit vectors"),
        ({"orientations": [[1, 0, 0, 0, 0, -1]]}, GeometryError, "ImageOrientationPatient differs .*a scout"),
    ],
)
def test_what_is_no_stack_of_slices_is_refused(
    tmp_path: Path, more: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_raster(write_series(tmp_path / "ct", hounsfield(), **more))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"-0.28\\0.96\\0.0", b"-0.28\\0.9\x146\\0.", "ImageOrientationPatient .* is no number"),
        (b"-0.28\\0.96\\0.0", b"-0.28\\0.960000", "ImageOrientationPatient is .* expected 6"),
        (b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00\x55\x0f", "Rows is damaged|header is damaged"),
        (b"\x28\x00\x01\x01US", b"\x28\x00\x09\x01US", "does not say BitsStored"),
        (b"\x28\x00\x00\x01US\x02\x00\x10\x00", b"\x28\x00\x00\x01US\x02\x00\x08\x00", "12 of 8 bits"),
        (b"-1024.0", b"-10\x8d4.0", "RescaleIntercept .* is no number"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.1.1\0", "TransferSyntaxUID .* is none"),
        (b"0.8\\0.7 ", b"-.8\\0.7 ", "expected more than 0"),
    ],
)
def test_damaged_headers_are_told_in_one_line(tmp_path: Path, before: bytes, after: bytes, message: str) -> None:
    folder = write_series(tmp_path / "ct", hounsfield())
    files = sorted(folder.iterdir())
    for file in files if b"840" in before else files[2:3]:
        content = file.read_bytes()
        assert content.count(before) >= 1
        assert len(before) == len(after)
        file.write_bytes(content.replace(before, after, 1))
    with pytest.raises(FormatError, match=message) as told:
        open_raster(folder)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith("ct: ")


def test_a_slope_of_nothing_is_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hounsfield())
    file = sorted(folder.iterdir())[1]
    head = pydicom.dcmread(file)
    head.RescaleSlope = 0
    head.save_as(file)
    with pytest.raises(FormatError, match="RescaleSlope 0"):
        open_raster(folder)


@pytest.mark.parametrize("place", ["head", "meta"])
def test_an_image_whose_header_was_cut_off_is_not_passed_over(tmp_path: Path, place: str) -> None:
    folder = write_series(tmp_path / "ct", hounsfield())
    last = max(folder.iterdir(), key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
    content = last.read_bytes()
    end = content.index(b"\x28\x00\x02\x00") if place == "head" else 200
    last.write_bytes(content[:end])
    with pytest.raises(FormatError, match=f"{last.name}: its header"):
        open_raster(folder)


def test_other_files_in_the_folder_do_not_disturb(tmp_path: Path) -> None:
    values = hounsfield()
    folder = write_series(tmp_path / "ct", values)
    (folder / "notes.txt").write_text("hello")
    (folder / "empty").touch()
    (folder / ".hidden.dcm").write_bytes(b"x")
    (folder / "below").mkdir()
    assert np.array_equal(open_raster(folder).read().values, values)


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no DICOM image in this folder; subfolders are not searched"):
        open_raster(tmp_path)
    (tmp_path / "a.dcm").write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"a\.dcm: not a DICOM image"):
        open_raster(tmp_path / "a.dcm")


def test_pixels_that_are_cut_off_name_their_file(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hounsfield())
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(FormatError, match=rf"{last.name}: its pixels cannot be read"):
        open_raster(folder).read()


def test_dicom_is_read_only(tmp_path: Path) -> None:
    raster = open_raster(write_series(tmp_path / "ct", hounsfield()))
    with pytest.raises(InputError, match=r"DICOM is read only; save the result as out\.nii\.gz"):
        save_raster(raster, tmp_path / "out.dcm")


def test_describe_tells_of_the_scanner_and_not_of_the_patient(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "ct", hounsfield())
    facts = adapter_for(folder).describe(str(folder))
    assert (facts["Manufacturer"], facts["slices"]) == ("ACME", 6)
    assert not any(secret in str(facts) for secret in ("Doe", "4711", "2026"))


def test_without_pydicom_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_series(tmp_path / "ct", hounsfield())
    monkeypatch.setattr("sciSR.io.dicom.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs pydicom; install scisr\[dicom\]"):
        open_raster(folder)


ROWS = (
    Row(
        "values",
        "CT in HU, others through slope and intercept, in a type that holds them all",
        test_values_and_geometry_are_what_itk_finds,
    ),
    Row(
        "position, orientation, spacing",
        "from the slices' positions, as ITK finds it",
        test_values_and_geometry_are_what_itk_finds,
    ),
    Row(
        "frames of one file (enhanced CT, MR, PET)",
        "slices, each where its own groups put it",
        test_the_frames_of_an_enhanced_file_are_its_slices,
    ),
    Row("PixelPaddingValue", "no value; comes back as it was", test_padding_is_no_value_and_comes_back),
    Row(
        "scanner and protocol",
        "a BIDS sidecar beside the `.nii.gz`",
        test_a_refined_series_becomes_nifti_in_scanner_space_with_a_sidecar_without_names,
    ),
    Row(
        "patient, dates",
        "left behind",
        test_a_refined_series_becomes_nifti_in_scanner_space_with_a_sidecar_without_names,
    ),
    Row(
        "several series in one folder",
        "listed; one is chosen with `series=`",
        test_several_series_are_listed_and_one_can_be_named,
    ),
    Row("gantry tilt", "refused, with its angle", test_a_tilted_gantry_is_told_with_its_angle),
    Row(
        "missing or uneven slices",
        "refused, with their place",
        lambda folder: test_missing_and_uneven_slices_are_told_where(folder, (0, 2.5, 5, 10, 12.5, 15), "1 slice"),
    ),
    Row(
        "several images of one place",
        "refused, with what they differ in",
        lambda folder: test_several_images_of_one_place_are_refused(folder, {}, "copies"),
    ),
)


def test_the_page_holds_this_table() -> None:
    check_table("DICOM series (read only)", ROWS)
