"""GPU manners, against a fake NVML: never a GPU that somebody else holds, unless told to share."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT, read_manifest, run
from helpers import training_arguments

from utils.machines import devices

CPU = "No GPU: running on the CPU.\n"


class NVMLError(Exception):
    """As pynvml's."""


@pytest.fixture
def driver(monkeypatch):
    """`driver([[11], []])` is that of two GPUs, the first of which process 11 holds; NVML's function `fails` raises."""

    def set_gpus(processes_by_gpu: list[list[int]], visible: str | None = None, fails: str = "") -> None:
        def fail(*_):
            raise NVMLError("no driver")

        functions = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: len(processes_by_gpu),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
            "nvmlDeviceGetName": lambda handle: f"Tesla {handle}",
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=pid) for pid in processes_by_gpu[handle]
            ],
        }
        monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=NVMLError, **functions | {fails: fail}))
        monkeypatch.setattr(os, "environ", dict(os.environ))
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible

    return set_gpus


@pytest.mark.parametrize(
    "processes_by_gpu, driver_options, several, visible_devices, expected_output",
    [
        ([], {"fails": "nvmlInit"}, False, "-1", CPU),
        ([], {}, False, "-1", CPU),
        ([[], []], {"visible": ""}, False, "-1", CPU),
        ([[], []], {"visible": "-1"}, False, "-1", CPU),
        ([[], []], {}, False, "GPU-0", "Running on Tesla 0.\n"),
        ([[11], []], {}, False, "GPU-1", "Running on Tesla 1.\n"),
        ([[os.getpid()]], {}, False, "GPU-0", "Running on Tesla 0.\n"),  # our own process does not hold one
        ([[], [11], []], {}, True, "GPU-0,GPU-2", "Running on Tesla 0, Tesla 2.\n"),
        ([[], []], {"visible": "1"}, True, "GPU-1", "Running on Tesla 1.\n"),
        ([[], []], {"visible": "GPU-1"}, True, "GPU-1", "Running on Tesla 1.\n"),
        ([[11]], {"visible": "MIG-7"}, False, "MIG-7", "Running on the MIG device of CUDA_VISIBLE_DEVICES.\n"),
    ],
)
def test_a_free_gpu_is_taken_among_the_visible(
    processes_by_gpu, driver_options, several, visible_devices, expected_output, driver, capsys
):
    driver(processes_by_gpu, **driver_options)
    device = devices.choose_device(may_share_gpus=False, may_use_several=several)
    assert (device, os.environ["CUDA_VISIBLE_DEVICES"]) == (
        "cpu" if visible_devices == "-1" else "gpu",
        visible_devices,
    )
    assert capsys.readouterr().out == expected_output


def test_sharing_goes_ahead_on_the_gpu_with_fewest_processes(driver):
    driver([[11, 12], [13]])
    assert devices.choose_device(may_share_gpus=True) == "gpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"


@pytest.mark.parametrize(
    "processes_by_gpu, driver_options, command_options, expected_words",
    [
        ([[11, 12], [13]], {}, "", ["Tesla 0: 11, 12", "Tesla 1: 13", "--shareGPU"]),
        ([[11], []], {"visible": "0"}, "", ["Tesla 0: 11"]),  # not escaped to one that is hidden
        ([[]], {"fails": "nvmlDeviceGetComputeRunningProcesses"}, "", ["NVML cannot tell", "no driver"]),
        ([[], [], []], {}, "--folds 5 --jobs 4", ["--jobs 4", "free GPUs", "3 are free"]),  # one for each
    ],
)
def test_occupied_gpus_are_left_alone_and_their_processes_listed(
    processes_by_gpu, driver_options, command_options, expected_words, driver, cohort
):
    driver(processes_by_gpu, **driver_options)
    outcome = run(
        f"run.py --train --model nn {command_options} --dataDir {{of}} --chkPointDir ckpt --outDir out", of=cohort
    )
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert [word for word in expected_words if word not in outcome.err] == []


def test_settings_deciding_the_last_bits_are_recorded(monkeypatch):
    limits = {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "SSE41", "TF_NUM_INTRAOP_THREADS": "3"}
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    processor_settings = devices.describe_processor()
    assert (processor_settings["onednn"], processor_settings["onednn_max_cpu_isa"], processor_settings["threads"]) == (
        False,
        "SSE41",
        3,
    )
    assert processor_settings["instruction_sets"] == np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])


@pytest.mark.slow
def test_a_processor_with_only_the_numpy_minimum_trains(cohort, tmp_path):
    """Such as one without AVX2; NumPy reads at its import what it may use."""
    beyond = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(beyond)}
    command = training_arguments(tmp_path, cohort, "nn", 1)
    ended = subprocess.run([sys.executable, ROOT / "run.py", *command], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert read_manifest(tmp_path / "out")["processor"]["instruction_sets"] == []


@pytest.mark.slow
@pytest.mark.parametrize("cap", ["AVX", "AVX2", "avx512_core_vnni"])
def test_a_training_in_bfloat16_below_a_cap_is_refused_in_a_single_line(cap, train, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    outcome = train("one", "nn", 1, "--precision", "mixed_bfloat16")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"ONEDNN_MAX_CPU_ISA={cap.upper()}" in outcome.err and "--precision" in outcome.err


def test_too_little_memory_is_a_single_line():
    import tensorflow as tf

    message = r"memory is too small for this network \(OOM.*\); lower batch_size"
    with pytest.raises(Exception, match=message), devices.explain_memory_errors():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore lines")
