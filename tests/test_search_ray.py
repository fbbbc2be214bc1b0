"""The trials of a search on a Ray cluster of two machines, which are one here."""

import json

import pytest

from hf_finetune.advice.search_folder import SearchFolder
from hf_finetune.advice.search_ray import _asking, _Driver
from hf_finetune.advice.search_reading import read_space
from hf_finetune.recipes import load_recipe

pytest.importorskip("optuna", reason="needs optuna: pip install 'hf_finetune[search]'")
Searcher = pytest.importorskip("ray.tune.search", reason="needs Ray Tune: pip install 'hf_finetune[ray]'").Searcher


@pytest.mark.slow
@pytest.mark.long
def test_trials_run_on_both_machines_and_leave_the_same_files(call):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        done = call(
            *("search", "recipe=digits", "data.max_train_samples=200", "data.max_eval_samples=60"),
            *("training.num_train_epochs=3", "evaluation.bootstrap=20", "trials=4", "engine=ray", "out=found"),
            "space={training.learning_rate: {low: 1e-5, high: 1e-2, log: true}}",
        )
        assert done.returncode == 0, done.stderr
    finally:
        ray.shutdown()
        cluster.shutdown()
    folder = call.folder / "found"
    found = json.loads((folder / "results.json").read_text())
    assert sorted(trial["trial"] for trial in found["trials"]) == [0, 1, 2, 3]
    assert found["trials"][0]["state"] == "complete" and found["trials"][0]["values"] == {}
    assert len({trial["node"] for trial in found["trials"] if trial["state"] == "complete"}) == 2
    assert found["test"]["samples"] == 60
    for name in ("study.db", "best.yaml", "space.yaml", "shipped.yaml"):
        assert (folder / name).is_file()
    assert not [path for path in (folder / "trials").iterdir() if path.is_dir()]


@pytest.mark.slow
def test_a_recipe_that_cannot_be_run_ends_the_search_and_leaves_nothing_tried(tmp_path):
    """Trials beside the first one fail of the same, and are tried again when it is mended."""
    from hf_finetune.advice.search_study import Study

    given = load_recipe("digits")
    space = read_space("{training.weight_decay: [0, 0.1]}", given)
    folder = SearchFolder(tmp_path)
    study = Study(folder.study, space, given)
    driver = _Driver(study, folder, 4)
    searcher, _ = _asking(driver)
    for name in ("a", "b"):
        assert searcher.suggest(name)["number"] == "ab".index(name)
    for name in ("a", "b"):
        searcher.on_trial_complete(name, {"state": "failed", "reason": "no such column", "score": float("nan")})
    assert driver.fault == "no such column"
    assert searcher.suggest("c") == Searcher.FINISHED
    assert study.tried() == []
    assert Study(folder.study, space, given).ask().number == 0
