"""What all tests share: compiled programs on disk, and memory that stays bounded."""

import collections
import ctypes
import gc
import itertools
import os
import zlib

import jax
import pytest

_EVERY = 100  # tests of one worker, which by then holds about a gigabyte of programs
_QUICK, _LONGEST = 0.8, 2.5  # seconds of a test's quick cases, and of its only one
_trim = getattr(ctypes.pythonapi, "malloc_trim", None)  # glibc keeps what was freed
_ended = itertools.count(1)


def pytest_addoption(parser):
    """Which part of the tests a run takes."""
    parser.addoption(
        "--share",
        metavar="I/N",
        help="only share I of N: any integer I, of which the remainder by N counts",
    )


def pytest_configure(config):
    """Most of the time goes to XLA: programs stay plain, and workers and later runs share them."""
    if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
        # CI compiles the long laws of draws as users do.
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    folder = config.cache.mkdir("jax") if hasattr(config, "cache") else None
    if folder is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Of a law's many cases, representatives are quick, and the others slow."""
    laws = [item for item in items if item.get_closest_marker("catalogue_law")]
    if laws:
        from tests.funcvi.catalogue import REPRESENTATIVES

        for item in laws:
            if item.callspec.params["name"] not in REPRESENTATIVES:
                item.add_marker(pytest.mark.slow)
    cases = collections.defaultdict(list)
    for item in items:
        if item.get_closest_marker("few") and not item.get_closest_marker("slow"):
            cases[item.path, item.originalname].append(item)
    for same in cases.values():
        (number,) = same[0].get_closest_marker("few").args
        quick = {i * len(same) // number for i in range(number)}
        for i, item in enumerate(same):
            if i not in quick:
                item.add_marker(pytest.mark.slow)
    for item in _cases_beyond_the_first_seconds(config, items):
        item.add_marker(pytest.mark.slow)
    if share := config.getoption("share"):
        index, number = (int(part) for part in share.split("/"))
        # A digest of the name: a test that is added moves no other to another share.
        items[:] = [x for x in items if zlib.crc32(x.nodeid.encode()) % number == index % number]


def _cases_beyond_the_first_seconds(config, items):
    """Of each test the cases that are not among its quickest, by what tools/durations.py recorded.

    One is always quick, if it does not take very long.
    """
    record = config.rootpath / "tests" / "durations.txt"
    lines = (line.split(" ", 1) for line in record.read_text().splitlines())
    seconds = {name: float(number) for number, name in lines}
    cases = collections.defaultdict(list)
    for item in items:
        if not item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for same in cases.values():
        same.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
        total = 0.0
        for number, item in enumerate(same):
            total += seconds.get(item.nodeid, 0.0)
            if total > (_QUICK if number else _LONGEST):
                yield item


@pytest.fixture
def optimised():
    """Programs as users compile them, where the last digits are what is tested."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def pytest_runtest_teardown():
    """Forgets compiled programs now and then."""
    if next(_ended) % _EVERY == 0:
        jax.clear_caches()
        gc.collect()
        if _trim is not None:
            _trim(0)
