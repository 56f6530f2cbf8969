"""GPU manners, against a fake NVML: never a GPU that somebody else holds, unless told to share."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT, run

from utils.machines import devices


class NVMLError(Exception):
    """As pynvml's."""


def fake_nvml(held: list[list[int]], fails: str = "") -> SimpleNamespace:
    """A pynvml with a GPU for each list of process ids; the function named `fails` raises."""

    def guarded(name, function):
        def call(*arguments):
            if name == fails:
                raise NVMLError("no driver")
            return function(*arguments)

        return call

    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(held),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}",
        "nvmlDeviceGetName": lambda handle: f"Tesla {handle}",
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=pid) for pid in held[handle]],
        "nvmlSystemGetProcessName": lambda pid: f"python{pid}",
    }
    guards = {name: guarded(name, function) for name, function in functions.items()}
    return SimpleNamespace(NVMLError=NVMLError, **guards)


@pytest.fixture
def driver(monkeypatch):
    """`driver([[11], []])` is that of two GPUs, the first of which process 11 holds."""

    def of(held, visible=None, fails=""):
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(held, fails))
        monkeypatch.setattr(os, "environ", dict(os.environ))
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible

    return of


@pytest.fixture
def choose(driver, capsys):
    """Chooses a device with a fake NVML; returns the choice, CUDA_VISIBLE_DEVICES after it, and what was printed."""

    def run(held, share=False, visible=None, fails=""):
        driver(held, visible, fails)
        device = devices.choose_device(share)
        return device, os.environ["CUDA_VISIBLE_DEVICES"], capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "held, how",
    [([], {"fails": "nvmlInit"}), ([], {}), ([[], []], {"visible": ""}), ([[], []], {"visible": "-1"})],
    ids=["no driver", "no GPU", "hidden", "hidden by -1"],
)
def test_without_a_gpu_it_says_so_in_one_line_and_uses_the_cpu(held, how, choose):
    assert choose(held, **how) == ("cpu", "-1", "No GPU: running on the CPU.\n")


@pytest.mark.parametrize("held, number", [([[11], []], 1), ([[], []], 0), ([[os.getpid()]], 0)])
def test_a_free_gpu_is_taken(held, number, choose):
    """Our own process does not hold one."""
    assert choose(held) == ("gpu", f"GPU-{number}", f"Running on Tesla {number}.\n")


@pytest.mark.parametrize(
    "held, how, told",
    [
        ([[11, 12], [13]], {}, ["11 python11", "12 python12", "13 python13", "Tesla 0", "Tesla 1", "--shareGPU"]),
        ([[11]], {"fails": "nvmlSystemGetProcessName"}, ["11 of another user"]),
        ([[11], []], {"visible": "0"}, ["11 python11"]),  # not escaped to one that is hidden
        ([[]], {"fails": "nvmlDeviceGetComputeRunningProcesses"}, ["NVML cannot tell who holds the GPUs (no driver)"]),
    ],
)
def test_held_gpus_are_left_alone_and_their_processes_named(held, how, told, driver, cohort):
    driver(held, **how)
    outcome = run("run.py --train --model nn --dataDir {of} --chkPointDir ckpt --outDir out", of=cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert [word for word in told if word not in outcome.err] == []


def test_each_fold_of_several_at_a_time_needs_a_gpu_of_its_own(driver, cohort):
    driver([[], [], []])
    command = "run.py --train --model nn --folds 5 --jobs 4 --dataDir {of} --chkPointDir ckpt --outDir out"
    outcome = run(command, of=cohort)
    assert outcome.status == 2 and all(words in outcome.err for words in ("--jobs 4", "free GPUs", "3 are free"))


def test_sharing_goes_ahead_on_the_gpu_that_fewest_hold(choose):
    assert choose([[11, 12], [13]], share=True)[:2] == ("gpu", "GPU-1")


@pytest.mark.parametrize("visible, expected", [("1", "GPU-1"), ("GPU-1", "GPU-1"), ("1,0", "GPU-0")])
def test_only_visible_gpus_are_considered(visible, expected, choose):
    assert choose([[], []], visible=visible)[:2] == ("gpu", expected)


def test_only_errors_lets_errors_through_and_notes_not(capfd):
    with devices.only_errors():
        os.write(2, b"I0000 00:00:1 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"E0000 00:00:1 cuda.cc:1] failed call to cuInit: no device\n")
        os.write(2, b"E0000 00:00:1 something.cc:1] the disk is on fire\n")
    assert capfd.readouterr().err == "E0000 00:00:1 something.cc:1] the disk is on fire\n"


@pytest.mark.slow
def test_what_decides_the_last_bits_is_told():
    """Of a new process, before and after it has imported TensorFlow; what the user has set stays."""
    code = "import sys; from utils.machines.devices import processor; before = processor(); import models.layers; "
    code += "import json; print(json.dumps([before, processor()]))"
    limits = {"TF_ENABLE_ONEDNN_OPTS": "0", "ONEDNN_MAX_CPU_ISA": "SSE41", "TF_NUM_INTRAOP_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | limits, cwd=ROOT, capture_output=True, text=True
    )
    before, after = json.loads(done.stdout)
    assert before == after
    assert (before["onednn"], before["onednn_max_cpu_isa"], before["threads"]) == (False, "SSE41", 3)
    assert before["instruction_sets"] == np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    assert devices.processor()["onednn"] == (os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1")


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0", reason="it is oneDNN that lacks it")
@pytest.mark.parametrize("cap", ["AVX2", "avx512_core_vnni"])
def test_a_training_in_bfloat16_below_a_cap_is_refused_in_one_line(cap, train, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    outcome = train("one", "nn", 1, "--precision", "mixed_bfloat16")
    assert outcome.status == 2
    assert outcome.err.startswith(f"run.py: error: ONEDNN_MAX_CPU_ISA={cap.upper()} leaves TensorFlow no way")
    assert "unset it, or use another --precision" in outcome.err


def test_too_little_memory_is_one_line():
    import tensorflow as tf

    message = r"memory is too small for this network \(OOM.*\); lower batch_size"
    with pytest.raises(Exception, match=message), devices.memory_errors_explained():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore lines")
