"""The score table: text, joining subjects, intervals."""

import json
import math

import numpy as np
import pytest

from sciSR.errors import InputError
from sciSR.evaluation.table import Score, ScoreTable


def table(subject: str, **psnr: float) -> ScoreTable:
    rows = tuple(Score(subject, m, "all", "valid", 10, {"psnr": v, "mae": v / 1000}) for m, v in psnr.items())
    return ScoreTable(rows, {"unit": "HU", "data_range": 2000.0, "crop": subject})


def test_text_shows_units_columns_that_vary_and_settings() -> None:
    text = str(table("a", net=30.126, cubic=28.0))
    head, first, *_ = text.splitlines()
    assert head.split() == ["method", "region", "PSNR", "[dB]", "MAE", "[HU]"]
    assert first.split() == ["net", "valid", "30.13", "0.03013"]
    assert "data_range: 2000" in text


def test_markdown_has_one_row_per_score() -> None:
    lines = table("a", net=30.0, cubic=28.0).to_markdown().splitlines()
    assert [line.count("|") for line in lines[:4]] == [5, 5, 5, 5]
    assert lines[1].startswith("| --- |")


def test_plain_values_are_json_without_infinity() -> None:
    plain = table("a", net=math.inf).to_dict()
    assert plain["rows"][0]["values"]["psnr"] is None
    json.dumps(plain, allow_nan=False)


def test_percent_columns_show_fractions_as_percent() -> None:
    text = str(ScoreTable((Score("a", "net", "all", "valid", 1, {"nrmse": 0.0123}),)))
    assert "NRMSE [%]" in text
    assert "1.230" in text


def test_join_keeps_shared_settings_and_lists_the_others() -> None:
    joined = ScoreTable.join([table("a", net=30.0), table("b", net=32.0)])
    assert joined.subjects == ("a", "b")
    assert joined.settings["data_range"] == 2000.0
    assert joined.settings["per_subject"] == {"a": {"crop": "a"}, "b": {"crop": "b"}}
    assert joined.value("net", "psnr") == 31.0
    assert joined.value("net", "psnr", subject="b") == 32.0
    assert "mean of 2" in str(joined)


def test_join_refuses_a_subject_that_comes_twice() -> None:
    with pytest.raises(InputError, match="a / net / all / valid came twice"):
        ScoreTable.join([table("a", net=30.0), table("a", net=31.0)])


def test_interval_brackets_the_mean_and_shrinks_with_subjects() -> None:
    def width(n: int) -> float:
        joined = ScoreTable.join([table(f"s{i}", net=30.0 + (-1) ** i) for i in range(n)])
        found = joined.interval("net", "psnr")
        assert found.low < found.mean < found.high
        assert found.subjects == n
        return found.high - found.low

    assert width(64) == pytest.approx(2 * 1.96 / 8, rel=0.1)
    assert width(16) == pytest.approx(2 * width(64), rel=0.15)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        joined = ScoreTable.join([table(f"s{i}", net=float(rng.normal(30, 2))) for i in range(25)])
        low, high = joined.interval("net", "psnr", resamples=500)[1:3]
        hits += low <= 30 <= high
    assert 48 <= hits <= 60


def test_paired_difference_is_narrower_than_the_spread_of_subjects() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(30, 5, 12)
    joined = ScoreTable.join(
        [table(f"s{i}", cubic=float(b), net=float(b + 1 + 0.1 * rng.normal())) for i, b in enumerate(base)]
    )
    gain = joined.interval("net", "psnr", minus="cubic")
    assert gain.mean == pytest.approx(1, abs=0.2)
    assert gain.low > 0.8
    assert gain.high - gain.low < 0.3


def test_an_infinite_number_has_no_interval_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    joined = ScoreTable.join([table("a", net=math.inf), table("b", net=30.0)])
    found = joined.interval("net", "psnr")
    assert found.mean == math.inf
    assert math.isnan(found.low)
    json.dumps(joined.to_dict(), allow_nan=False)
    assert not recwarn.list


def test_interval_needs_two_subjects() -> None:
    with pytest.raises(InputError, match="1 subjects have psnr of net"):
        table("a", net=30.0).interval("net", "psnr")


def test_unknown_row_is_named() -> None:
    with pytest.raises(InputError, match=r"no ssim of net .*methods are net"):
        table("a", net=30.0).value("net", "ssim")


def test_nothing_to_join() -> None:
    with pytest.raises(InputError, match="no table"):
        ScoreTable.join([])


def test_a_notebook_shows_the_table_with_its_words_escaped() -> None:
    shown = ScoreTable((Score("a", "<net>", "all", "valid", 10, {"psnr": 30.0}),), notes=("a & b",))._repr_html_()
    assert shown.count("<tr>") == shown.count("</tr>") == 2
    assert "&lt;net&gt;" in shown
    assert '<td align="right">30.00</td>' in shown
    assert shown.endswith("a &amp; b")
