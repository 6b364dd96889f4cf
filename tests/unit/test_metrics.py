"""What a scraper sees, of one process and of several."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.observe.family import make_place
from service.observe.metrics import Metrics
from support.processes import ROOT

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class QueueLength:
    """Something that is found out only when it is asked for."""

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("chatkit_mint_found_out", "As the test says.", value=7)


@pytest.fixture(params=["one process", "several"])
def metrics(request: pytest.FixtureRequest, tmp_path: Path) -> Metrics:
    if request.param == "one process":
        return Metrics()
    make_place(tmp_path, "0")
    return Metrics(tmp_path)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_what_is_found_out_at_a_scrape_stands_beside_what_was_counted(metrics: Metrics, accept: str) -> None:
    metrics.scraped.register(QueueLength())
    body, content_type = metrics.exposition(accept)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    families = openmetrics.text_string_to_metric_families if accept else text_string_to_metric_families
    found = {family.name: family.samples for family in families(body.decode())}
    assert found["chatkit_mint_found_out"][0].value == 7


def write(path: Path, name: str, value: float) -> None:
    """Count as a worker does, in a file of its own."""
    values = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    family = name.removesuffix("_total")
    values.write_value(mmap_key(family, name, [], [], "As the test says."), value, 0.0)  # type: ignore[no-untyped-call]
    values.close()  # type: ignore[no-untyped-call]


def test_a_new_process_goes_on_where_the_last_in_its_place_stopped(tmp_path: Path) -> None:
    for place in "01":
        make_place(tmp_path, place)
        write(tmp_path / f"counter_{place}.db", "chatkit_mint_counted_total", 5)
        write(tmp_path / f"gauge_livesum_{place}.db", "chatkit_mint_under_way", 3)
    make_place(tmp_path, "1")  # the one in this place has died
    body, _ = Metrics(tmp_path).exposition("")
    assert b"\nchatkit_mint_counted_total 10.0\n" in body
    assert b"\nchatkit_mint_under_way 3.0\n" in body
    assert {path.suffix for path in tmp_path.iterdir()} == {".db"}


def test_a_full_disk_is_an_error_and_no_end_of_the_process(tmp_path: Path) -> None:
    home = tmp_path / "disk"
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", home], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    try:
        (home / "full").write_bytes(bytes(128 * 1024))
        script = f"from service.observe.family import *; make_place(Path({str(home)!r}), '0')"
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ended.returncode == 1, "no signal"
        assert "No space left on device" in ended.stderr
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def test_a_place_can_be_read_before_anybody_counts_there(tmp_path: Path) -> None:
    make_place(tmp_path, "0")
    assert Metrics(tmp_path).exposition("")[0] == b""


def test_the_table_for_people_is_what_the_code_has() -> None:
    written = subprocess.run([sys.executable, ROOT / "docs/metrics_table.py", "-"], capture_output=True, check=True)
    assert (ROOT / "docs/metrics.md").read_text() == written.stdout.decode(), "run `make generated`"


def test_tenants_past_the_ceiling_share_a_name_and_who_has_one_keeps_it() -> None:
    metrics, other = Metrics(tenants=3), Metrics(tenants=3)
    names = [f"tenant-{number}" for number in range(10)]
    for each in (metrics, other):
        each.know(names if each is metrics else names[::-1])
    own = {name for name in names if metrics.tenant(name) == name}
    assert len(own) == 3
    assert own == {name for name in names if other.tenant(name) == name}
    assert {metrics.tenant(name) for name in {*names} - own} == {"other"}
    metrics.know(["fresh", *names])
    assert own == {name for name in names if metrics.tenant(name) == name}
    assert metrics.tenant("of no file") == "other"


def test_a_tenant_without_live_sessions_has_none() -> None:
    metrics = Metrics()
    metrics.know(["acme", "globex"])
    metrics.set_live({"acme": 3, "nobody's": 2})
    metrics.set_live({"globex": 1})
    told = {
        name: metrics.registry.get_sample_value("chatkit_mint_sessions_live", {"tenant": name})
        for name in ("acme", "globex", "other")
    }
    assert told == {"acme": 0, "globex": 1, "other": 0}
