"""What the model may see. Neither race nor sex is among it, nor the tract's share of minorities."""

from __future__ import annotations

FEATURES = (
    "hrat",
    "obrat",
    "loanprc",
    "unem",
    "married",
    "dep",
    "sch",
    "cosign",
    "chist",
    "pubrec",
    "mortlat1",
    "mortlat2",
    "vr",
    "loanamt",
    "atotinc",
    "price",
    "appinc",
    "fixadj",
    "term",
    "emp",
    "netw",
)
FOLD = "fold"
FOLDS = 5
FOLD_SEED = 0  # which rows a model has not seen belongs to the evaluation, not to the run
NULLABLE = ("married", "dep", FOLD)
UNITS = {
    "hrat": "%",
    "obrat": "%",
    "unem": "%",
    "loanamt": "kUSD",
    "price": "kUSD",
    "appinc": "kUSD/a",
    "atotinc": "USD/mo",
    "term": "mo",
    "emp": "a",
    "netw": "kUSD",
}
