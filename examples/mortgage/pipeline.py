"""The pipeline: five logistic models, each judged on the applications that it has not seen."""

from __future__ import annotations

from learn import evaluate, fit, group, load, pack, prove

from falaj import Model, pipeline


@pipeline
def decide() -> Model:
    rows = load()
    fitted = fit(rows)
    proof = prove(fitted.onnx, fitted.scored)
    test = group(fitted.scored)
    evaluate(fitted.onnx, test, fitted.threshold)
    return pack(fitted.onnx, fitted.threshold, proof, test)
