"""Training: the Trainer subclass and what it stands on. `finetune.py` calls these in the order of a run."""

from __future__ import annotations

from hf_finetune.training.account import account_of
from hf_finetune.training.agreement import together
from hf_finetune.training.arguments import build_arguments, fit_to_data
from hf_finetune.training.energy import Energy
from hf_finetune.training.fastest import settle_format
from hf_finetune.training.folder import RunFolder
from hf_finetune.training.head_checks import check_head
from hf_finetune.training.kernels import fast_kernels
from hf_finetune.training.learning import learn
from hf_finetune.training.memory import keep_freed_memory
from hf_finetune.training.micro_batch import fewer_at_once, settle_batch
from hf_finetune.training.out_of_memory import OutOfMemory
from hf_finetune.training.precision import choose_precision
from hf_finetune.training.prefix_setup import cache_prefix, kept_facts
from hf_finetune.training.quiet import quiet_libraries
from hf_finetune.training.rescue import warn_of_little_room
from hf_finetune.training.restarts import meet_anew
from hf_finetune.training.run_facts import facts
from hf_finetune.training.saving_run import save
from hf_finetune.training.schedules import check_schedules
from hf_finetune.training.scoring import Report, score
from hf_finetune.training.setup import build_trainer, data_in_words, head_in_words, make_samples, plan_in_words
from hf_finetune.training.sharding import loaded_whole, refuse_batch_norm, refuse_sharding
from hf_finetune.training.threads import use_every_core
from hf_finetune.training.told import told
from hf_finetune.training.trainer import FinetuneTrainer
from hf_finetune.training.watchdog import watching
from hf_finetune.training.worker_environment import keep_token_from_workers

__all__ = [
    "Energy",
    "FinetuneTrainer",
    "OutOfMemory",
    "Report",
    "RunFolder",
    "account_of",
    "build_arguments",
    "build_trainer",
    "cache_prefix",
    "check_head",
    "check_schedules",
    "choose_precision",
    "data_in_words",
    "facts",
    "fast_kernels",
    "fewer_at_once",
    "fit_to_data",
    "head_in_words",
    "keep_freed_memory",
    "keep_token_from_workers",
    "kept_facts",
    "learn",
    "loaded_whole",
    "make_samples",
    "meet_anew",
    "plan_in_words",
    "quiet_libraries",
    "refuse_batch_norm",
    "refuse_sharding",
    "save",
    "score",
    "settle_batch",
    "settle_format",
    "together",
    "told",
    "use_every_core",
    "warn_of_little_room",
    "watching",
]
