"""Model files as the real libraries write them: `python formats_child.py FOLDER [large]`.

Runs inside the environment of the part `formats`. torch is not in its lock, because its CPU build
lies on no public index; where it is installed beside, its files are made, too.
"""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import sys
from pathlib import Path


def rows(n=400, width=6):
    import numpy as np

    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, width))
    return x, (x[:, 0] + 0.3 * draw.normal(size=n) > 0).astype(int)


def sklearn_models():
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    x, y = rows()
    made = {
        "logistic": LogisticRegression(),
        "ridge": Ridge(),
        "sgd": SGDClassifier(loss="log_loss"),
        "svc": SVC(probability=False),
        "tree": DecisionTreeClassifier(max_depth=4),
        "forest": RandomForestClassifier(20, max_depth=4),
        "gradient boosting": GradientBoostingClassifier(n_estimators=10),
        "histogram boosting": HistGradientBoostingClassifier(max_iter=10),
        "neighbours": KNeighborsClassifier(),
        "network": MLPClassifier((8,), max_iter=30),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    }
    for model in made.values():
        model.fit(x, y)
    text = LogisticRegression().fit(x, ["yes" if one else "no" for one in y])
    return made | {"labels of text": text}


def boosters(large):
    import lightgbm
    import xgboost

    x, y = rows(50_000 if large else 400, 20 if large else 6)
    trees = 300 if large else 5
    bst = xgboost.XGBClassifier(n_estimators=trees, max_depth=7 if large else 3).fit(x, y)
    gbm = lightgbm.LGBMClassifier(n_estimators=trees, num_leaves=127 if large else 8, verbose=-1)
    gbm.fit(x, y)
    return bst, gbm


def main(folder, *, large=False):
    bst, gbm = boosters(large)
    bst.save_model(folder / "xgboost.ubj")
    gbm.booster_.save_model(folder / "lightgbm.txt")
    if large:
        bst.save_model(folder / "xgboost.json")
        torch_files(folder, side=4000)
        return
    bst.get_booster().save_model(folder / "xgboost.json")
    plain(folder)
    for number, (name, model) in enumerate((sklearn_models() | {"xgb": bst, "lgbm": gbm}).items()):
        foreign(folder, f"{number} {name}", model)
    torch_files(folder)


def plain(folder):
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet
    import safetensors.numpy
    import skops.io

    arrays = {"w": np.eye(3, dtype="f4"), "b": np.arange(4), "flags": np.array([True, False])}
    safetensors.numpy.save_file(arrays, folder / "a.safetensors", metadata={"format": "np"})
    np.savez(folder / "a.npz", **arrays)
    np.savez_compressed(folder / "b.npz", **arrays)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", None], "c": pd.Categorical(["u", "v"])})
    frame.to_parquet(folder / "a.parquet")
    pa.parquet.write_table(
        pa.table({"a": [[1, 2], None]}), folder / "b.parquet", compression="zstd"
    )
    pa.feather.write_feather(frame, folder / "a.arrow")
    pa.feather.write_feather(frame, folder / "b.arrow", compression="uncompressed")
    for name, model in sklearn_models().items():
        if name not in {"neighbours", "labels of text", "histogram boosting"}:
            skops.io.dump(model, folder / f"{name}.skops")


def foreign(folder, name, model):
    """Pickles and joblib files, all protocols and compressions that people use."""
    import joblib

    home = folder / "foreign"
    home.mkdir(exist_ok=True)
    for protocol in (2, 4, 5):
        (home / f"{name}.{protocol}.pkl").write_bytes(pickle.dumps(model, protocol=protocol))
    joblib.dump(model, home / f"{name}.joblib")
    joblib.dump(model, home / f"{name}.z.joblib", compress=3)
    joblib.dump(model, home / f"{name}.xz.joblib", compress=("xz", 3))
    memory = io.BytesIO()
    joblib.dump(model, memory)
    (home / f"{name}.memory.joblib").write_bytes(memory.getvalue())


def torch_files(folder, side=4):
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, side), torch.nn.BatchNorm1d(side), torch.nn.Linear(side, side)
    )
    torch.save(net.state_dict(), folder / "a.pt")
    if side > 4:
        return
    torch.save(dict(net.named_parameters()), folder / "b.pt")
    torch.save({"a": torch.ones(3, dtype=torch.int64), "n": 3, "l": [1.5]}, folder / "c.pt")
    half = {name: one.to(torch.bfloat16) for name, one in net.state_dict().items()}
    torch.save(half, folder / "d.pt")
    bad = folder / "hostile"
    bad.mkdir()
    torch.save(net, bad / "module.pt")
    torch.save(net.state_dict(), bad / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(torch.nn.Linear(2, 2)).save(bad / "script.pt")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    main(out, large=sys.argv[2:] == ["large"])
    print(json.dumps(sorted(one.name for one in out.iterdir())))
