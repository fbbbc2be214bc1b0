"""The accelerate configs: read by accelerate's own loader, each opening with its command."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

FOLDER = REPOSITORY / "accelerate_configs"
FILES = sorted(FOLDER.glob("*.yaml"))
NAMED = "cpu cpu_2proc mps single_gpu multi_gpu multi_node fsdp2 deepspeed_zero2 deepspeed_zero3"
HARDWARE = (
    "compute_environment debug distributed_type use_cpu num_machines machine_rank num_processes gpu_ids "
    "mixed_precision rdzv_backend same_network main_training_function main_process_ip main_process_port "
    "enable_cpu_affinity fsdp_config deepspeed_config"
)


def launch(file):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    arguments = launch_command_parser().parse_args(["--config_file", str(file), "hf_finetune/run.py", "recipe=cifar10"])
    return _validate_launch_command(arguments)[0]


def test_the_promised_ones_are_there():
    assert {file.stem for file in FILES} == set(NAMED.split())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestEvery:
    def test_accelerates_loader_takes_it(self, file):
        from accelerate.commands.config.config_args import load_config_from_file

        given = yaml.safe_load(file.read_text())
        loaded = load_config_from_file(str(file))
        assert str(loaded.distributed_type.value) == given["distributed_type"]
        assert str(loaded.mixed_precision) == given["mixed_precision"]

    def test_the_launcher_takes_it_as_meant(self, file, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        given = yaml.safe_load(file.read_text())
        arguments = launch(file)
        assert arguments.num_processes == given["num_processes"]
        assert arguments.num_machines == given["num_machines"]
        assert bool(arguments.multi_gpu) == (given["distributed_type"] == "MULTI_GPU")
        assert bool(arguments.use_fsdp) == (given["distributed_type"] == "FSDP")
        assert bool(arguments.use_deepspeed) == (given["distributed_type"] == "DEEPSPEED")
        if arguments.use_deepspeed:
            assert arguments.zero_stage == int(file.stem[-1])
        if arguments.use_fsdp:
            assert str(arguments.fsdp_version) == "2"

    def test_it_says_hardware_and_precision_only(self, file):
        assert set(yaml.safe_load(file.read_text())) <= set(HARDWARE.split())

    def test_it_opens_with_a_title_and_a_command_that_exists(self, file):
        title, command, *_ = file.read_text().splitlines()
        assert re.match(r"# \w.{15,}", title)
        words = shlex.split(command.removeprefix("#"))
        assert "accelerate launch" in command and "hf_finetune/run.py" in words
        assert Path(words[words.index("--config_file") + 1]) == file.relative_to(REPOSITORY)


def test_the_environment_of_several_machines_and_of_fsdp_can_be_made():
    from accelerate.utils.launch import prepare_multi_gpu_env

    several = prepare_multi_gpu_env(launch(FOLDER / "multi_node.yaml"))
    assert several["ACCELERATE_MIXED_PRECISION"] == "bf16"
    sharded = prepare_multi_gpu_env(launch(FOLDER / "fsdp2.yaml"))
    assert sharded["ACCELERATE_USE_FSDP"] == "true" and sharded["FSDP_VERSION"] == "2"


WHO = """
import os
from accelerate import PartialState
state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU") == "true")
os.write(1, f"RANK {state.process_index} of {state.num_processes} {state.backend}\\n".encode())
state.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("name", "ranks"), [("cpu", ["RANK 0 of 1 None"]), ("cpu_2proc", ["RANK 0 of 2 gloo", "RANK 1 of 2 gloo"])]
)
def test_the_cpu_configs_start_what_they_say(name, ranks, tmp_path):
    """The file's own command with another script: two gloo processes are not what accelerate starts by itself."""
    script = tmp_path / "who.py"
    script.write_text(WHO)
    command = (FOLDER / f"{name}.yaml").read_text().splitlines()[1].removeprefix("#").strip()
    command = command[: command.index("hf_finetune/run.py")] + shlex.quote(str(script))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        shell=True,
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert sorted(line for line in result.stdout.splitlines() if line.startswith("RANK")) == ranks
