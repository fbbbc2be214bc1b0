"""Names of the metrics for each kind of problem, in the order shown; the first chooses the best checkpoint."""

from __future__ import annotations

METRIC_NAMES: dict[str, tuple[str, ...]] = {
    "single_label_classification": (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "micro_f1",
        "top5_accuracy",
        "log_loss",
        "ece",
    ),
    "multi_label_classification": ("micro_f1", "macro_f1", "mean_average_precision", "accuracy"),
    "regression": ("mse", "mae", "r2", "pearson", "spearman"),
}
