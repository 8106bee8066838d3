"""A table of mistakes: each gives one sentence with what is wrong in it, and exit code 2.

A row is a command line, in which {t} is a folder of the test's own, {ckpt} a trained checkpoint and
{data} a data set for Folder; and the words that the sentence must have.
"""

import shlex

import cv2
import numpy as np
import pytest
import torch

from deeplab_lit import convert, export, fit, plot_trimap, predict, tune_crf, validate
from deeplab_lit.ablate import __main__ as ablate
from deeplab_lit.benchmark import __main__ as benchmark
from deeplab_lit.prepare import __main__ as prepare

pytestmark = pytest.mark.usefixtures("undrawn")  # the default network is a ResNet-101
COMMANDS = {
    "ablate": ablate.main,
    "benchmark": benchmark.main,
    "convert": convert.main,
    "export": export.main,
    "fit": fit.main,
    "plot_trimap": plot_trimap.main,
    "predict": predict.main,
    "prepare": prepare.main,
    "tune_crf": tune_crf.main,
    "validate": validate.main,
}
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = {
    "latin.yaml": "run: Größe\n".encode("latin-1"),
    "utf16.yaml": "run: a\n".encode("utf-16"),
    "binary.yaml": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "empty.yaml": b"",
    "list.yaml": b"- a\n",
    "words.yaml": b"just words\n",
    "broken.yaml": b"model: [\n",
    "tabs.yaml": b"model:\n\tlr: 1\n",
    "twice.yaml": b"model:\n  lr: 1\n  norm: batch\n  lr: 2\n",
    "itself.yaml": b"model: &a {lr: *a}\n",
    "laughs.yaml": LAUGHS.encode(),
    "deep.yaml": b"a: " + b"[" * 2_000,
    "object.yaml": b"run: !!python/object/apply:os.getcwd []\n",
    "null_model.yaml": b"model: null\n",
    "null_data.yaml": b"data: null\n",
    "null_trainer.yaml": b"trainer:\n",
    "null_eval.yaml": b"eval: null\n",
    "null_checkpoint.yaml": b"checkpoint: null\n",
    "null_class.yaml": b"data: {class_path: null}\n",
    "null_args.yaml": b"data: {class_path: Shapes, init_args: null}\n",
    "key.yaml": b"model:\n  atrous_rate: [6]\n",
    "section.yaml": b"modell:\n  lr: 1\n",
    "type.yaml": b"model:\n  lr: much\n",
    "data_key.yaml": b"data:\n  class_path: Shapes\n  init_args:\n    crop_sise: 65\n",
    "callback.yaml": b"trainer:\n  callbacks:\n  - class_path: EarlyStoping\n",
    "nul.yaml": b'data:\n  class_path: Folder\n  init_args: {root: "a\\0b"}\n',
    "sweep.yaml": b"method: grid\nparameters: {model.lr: {values: [1, 2]}}\n"
                  b"command: [python, -m, deeplab_lit.fit, '--data=Shapes', '${args}']\n",
    "sweep_twice.yaml": b"method: grid\nmethod: grid\n",
    "bayes.yaml": b"method: bayes\n",
    "text.ckpt": b"no checkpoint\n",
    "empty.ckpt": b"",
    "zip.ckpt": b"PK\x05\x06" + bytes(18),
    "png.ckpt": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "html.ckpt": b"<html>404</html>",
    "a.txt": b"a",
    "trimap.csv": b"a,b\n1,2\n",
}  # fmt: skip
LONG = "x" * 300
ONE = "--trainer.max_steps=1 --model.weights=none --model.norm=batch --data.val_split=all"
PREDICT = "predict --ckpt_path={ckpt} --images {data}/images/val --out={t}/out"

MISTAKES = [
    # options
    ("fit --nonsense=1", "--nonsense is no option of fit"),
    ("fit --conf={t}/key.yaml", "--conf is no option of fit: did you mean --config?"),
    ("fit --data=Shapes --model.atrous_rate=[6]", "did you mean --model.atrous_rates?"),
    ("fit --data=Shapes --trainer.max_step=3", "did you mean --trainer.max_steps?"),
    (
        "fit --data=Shapes --data.crop=65",
        "--data.crop is no option of Shapes: did you mean --loader.crop_size?",
    ),
    ("fit --optimizer=SGD", "--optimizer"),
    ("fit stray", "'stray' is not expected here"),
    ("fit --run", "--run needs a value"),
    ("fit --data VOC --data.root", "--data.root needs a value"),
    ("fit --data folder", "did you mean Folder?"),
    ("fit --data os.system", "--data os.system: expected one of ADE20K, "),
    ("fit --data=Shapes --trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor is miss"),
    ("fit --data nowhere.Data", "--data nowhere.Data: No module named 'nowhere'"),
    ("fit --data=null", "data"),
    ("fit --data=Shapes --model.backbone=resnet99", "one of resnet18, resnet34, resnet50"),
    ("fit --data=Shapes --model.lr=much", "--model.lr much: expected a number"),
    (
        "fit --data=Shapes --model.norm=group",
        "--model.norm group: expected one of frozen, frozen_affine, ba",
    ),
    ("fit --data=Shapes --model.atrous_rates=6", "--model.atrous_rates 6: expected a list"),
    ("fit --data=Shapes --model=3", "--model 3: expected the name of a subclass of"),
    ("fit --data=Shapes --model=null", "--model: expected options of its own"),
    ("fit --data=Shapes --trainer=null", "--trainer: expected options of its own"),
    ("fit --data=Shapes --loader.crop_size=big", "--loader.crop_size big: expected a whole"),
    ("fit --data=Shapes --loader.resize=720", "--loader.resize 720: expected a list"),
    ("fit --data=Shapes --loader.resize_filter=lanczos", "expected one of bicubic, bilinear"),
    (
        "fit --data=Shapes --loader.crop_size=whole",
        "crop_size whole with several scales gives images of several sizes",
    ),
    ("fit --data=Shapes --unlabeled_data.root=x", "as --unlabeled_data Cityscapes --unlabeled_"),
    (
        "fit --data=Shapes --loader.crop_size=[321,640] --loader.resize=[200,640]",
        "crop_size [321, 640] (height, width) is larger than what resize makes of every image, "
        "[300, 960] at the largest scale",
    ),
    (
        "fit --data=Shapes --trainer.max_steps=1 --loader.unlabeled_resize=[400,400]",
        "--loader.unlabeled_resize is for the images of --unlabeled_data, which is not given",
    ),
    (
        "fit --data=Shapes --loader.unlabeled_crop_size=20",
        "of unlabeled images, crop_size must be in 33…8192 pixels, got 20",
    ),
    ("fit --data=Shapes --eval.score_resized=true", "--eval.resize: give it"),
    ("fit --data=Shapes --eval.resize=[20,64]", "resize must be a height and a width in 33"),
    ("fit --data=Shapes --loader.batch_size=1.5", "--loader.batch_size 1.5: expected a whole"),
    ("fit --data=Shapes --loader.check=all", "--loader.check all: expected one of quick, full"),
    ("fit --data=Shapes --trainer.max_steps=abc", "--trainer.max_steps abc: expected a whole"),
    ("fit --data=Shapes --trainer.precision=7", "--trainer.precision 7: expected one of"),
    ("fit --data=Shapes --trainer.devices=-3", "devices"),
    ("fit --data=Shapes --trainer.devices=some", "devices"),
    ("fit --data=Shapes --trainer.accelerator=abacus", "abacus"),
    ("fit --data=Shapes --trainer.strategy=alone", "alone"),
    ("fit --data=Shapes --trainer.logger=Foo", "--trainer.logger Foo: expected one of"),
    ("fit --data=Shapes --seed_everything=x", "--seed_everything x: expected true or false"),
    ("fit --data=Shapes --crf.backend=x", "one of auto, native, torch, pydensecrf"),
    ("fit --data=Shapes --crf=3", "expected a file like configs/crf/vgg16.yaml"),
    (
        "fit --data=Shapes --eval.window=[1,2,3]",
        "--eval.window [1, 2, 3]: expected a whole number or a list of 2",
    ),
    ("fit --data=Folder", "root"),
    # configurations
    ("fit --config", "--config needs a file"),
    ("fit --config=", "--config needs a file"),
    ("fit -c", "--config needs a file"),
    ("fit --config={t}", "{t} is a folder"),
    ("fit --config={t}/keys.yaml", "no such file: did you mean {t}/key.yaml?"),
    ("fit --config={t}/latin.yaml", "latin.yaml, line 1: not UTF-8"),
    ("fit --config={t}/utf16.yaml", "utf16.yaml is UTF-16 text"),
    ("fit -c{t}/binary.yaml", "binary.yaml is a binary file"),
    ("fit --config={t}/empty.yaml", "empty.yaml is no configuration: it holds nothing"),
    ("fit --config={t}/list.yaml", "list.yaml is no configuration: it holds a list"),
    ("fit --config={t}/words.yaml", "words.yaml is no configuration"),
    ("fit --config={t}/broken.yaml", "broken.yaml is no YAML, line 2"),
    ("fit --config={t}/tabs.yaml", "tabs.yaml is no YAML, line 2"),
    ("fit --config={t}/twice.yaml", "twice.yaml has lr twice, in line 2 and in line 4"),
    ("fit --config={t}/itself.yaml", "itself.yaml has a value that contains itself"),
    ("fit --config={t}/laughs.yaml", "laughs.yaml holds more than 100,000 values"),
    ("fit --config={t}/deep.yaml", "deep.yaml is nested more than 40 deep"),
    ("fit --config={t}/object.yaml", "object.yaml is no YAML that can be used"),
    *(
        (f"fit --data=Shapes --config={{t}}/null_{name}.yaml", f"null_{name}.yaml: {name} is null")
        for name in ("model", "data", "trainer", "eval", "checkpoint")
    ),
    ("fit --config={t}/null_class.yaml", "data.class_path is null"),
    ("fit --config={t}/null_args.yaml", "data.init_args is null"),
    ("fit --config={t}/key.yaml", "{t}/key.yaml: model.atrous_rate is no option of fit: did you"),
    ("fit --config={t}/section.yaml", "{t}/section.yaml: modell"),
    ("fit --config={t}/type.yaml", "{t}/type.yaml: model.lr: much: expected a number"),
    ("fit --config={t}/data_key.yaml", "{t}/data_key.yaml: data.crop_sise is no option of Shapes"),
    ("fit --data=Shapes --config={t}/callback.yaml", "did you mean EarlyStopping?"),
    ("fit --config={t}/nul.yaml", "classes.txt does not exist"),
    ("prepare check --config={t}/twice.yaml", "twice.yaml has lr twice"),
    ("predict --config={t}/twice.yaml --ckpt_path=a --images b --out=c", "has lr twice"),
    ("benchmark step --config={t}/latin.yaml", "latin.yaml, line 1: not UTF-8"),
    # checkpoints
    ("fit --data=Shapes --ckpt_path=", "--ckpt_path names no file"),
    ("validate --ckpt_path=", "validate needs --ckpt_path FILE"),
    ("validate", "validate needs --ckpt_path FILE"),
    ("validate --data=Shapes --ckpt_path={t}/none.ckpt", "none.ckpt: no such file"),
    ("validate --data=Shapes --ckpt_path={t}", "is a folder"),
    *(
        (f"{command} --ckpt_path={{t}}/{name}.ckpt", f"{name}.ckpt")
        for name in ("text", "empty", "zip", "png", "html", "half")
        for command in ("validate --data=Shapes", "export --out={t}/a.onnx")
    ),
    ("fit --data=Shapes --model.weights={t}/text.ckpt --trainer.max_steps=1", "text.ckpt"),
    ("validate --ckpt_path={ckpt} --eval.scales=[]", "scales"),
    (
        "validate --ckpt_path={ckpt} --model.backbone=vgg16",
        "network and training are",
    ),
    ("validate --ckpt_path={ckpt} --model.scales=[1]", "--eval.scales"),
    ("fit --data=Shapes --ckpt_path={ckpt} --model.backbone=vgg16", "trained with"),
    ("validate --ckpt_path={ckpt} --data=Folder --data.root={data}", "classes"),
    # another domain
    ("fit --data=Shapes --val_data=Folder --val_data.root={data}", "Folder"),
    (
        "fit --data=Shapes --unlabeled_data=Folder --unlabeled_data.root={data} "
        "--unlabeled_data.mask_dir={data}/labels/train",
        "--unlabeled_data.mask_dir",
    ),
    (f"fit --data=Synthia {ONE} --data.root={{data}}/synthia", "has been saved in 8 bits"),
    (f"fit --data=Synthia {ONE} --data.root={{data}}", "RAND_CITYSCAPES"),
    (f"fit --data=GTA5 {ONE} --data.root={{data}}/gta5", "labels/00001.png"),
    (f"fit --data=GTA5 {ONE} --data.root={{data}}", "images"),
    (
        "fit --data=Shapes --loader.resize=[256,512] --loader.crop_size=[512,1024]",
        "crop_size",
    ),
    ("fit --data=Shapes --eval.score_resized=true", "--eval.score_resized true"),
    (
        "fit --data=Shapes --eval.subsets=columns",
        "subsets columns: expected one of rows, pixels",
    ),
    ("fit --data=Shapes --eval.subsets=rows", "--eval.subsets rows: Shapes has no subsets"),
    (
        "validate --ckpt_path={ckpt} --eval.subsets=pixels",
        "Shapes has no subsets",
    ),
    (
        "fit --data=Shapes --model.weights=none --checkpoint.monitor=val/miou16 "
        "--trainer.max_steps=1",
        "watches val/miou16, which is not logged",
    ),
    # predict
    ("predict", "--ckpt_path and --images and --out are missing"),
    (f"{PREDICT} --submission=kitti", "--submission kitti: expected one of voc, cityscapes"),
    (f"{PREDICT} --opacity=2", "--opacity must be in 0…1"),
    (f"{PREDICT} --num_workers=-1", "--num_workers -1: expected a number >= 0"),
    (f"{PREDICT} --device=tpux", "--device tpux"),
    (f"{PREDICT} --ids={{t}}/none.txt", "none.txt does not exist, expected a list of images"),
    (f"{PREDICT} --eval.flip=maybe", "--eval.flip maybe: expected true or false"),
    ("predict --ckpt_path={ckpt} --images {t}/none --out={t}/out", "{t}/none"),
    (f"predict --ckpt_path={{ckpt}} --images {{data}}/images --out={{t}}/{LONG}", "File name too"),
    # the others
    ("tune_crf --ckpt_path={ckpt}", "--out is missing"),
    ("tune_crf --ckpt_path={ckpt} --out={t}/o --num_images=0", "--num_images 0: expected a number"),
    ("tune_crf --ckpt_path={ckpt} --out={t}/o --backend=gpu", "gpu"),
    ("tune_crf --ckpt_path={ckpt} --out={t}/a.txt", "a.txt"),
    ("convert", "FILE and OUT are missing"),
    ("convert {t}/none.pth {t}/b.ckpt", "none.pth: no such file"),
    ("convert {t}/text.ckpt {t}/b.ckpt", "text.ckpt"),
    ("convert {ckpt} {t}/text.ckpt", "text.ckpt exists already"),
    ("convert {ckpt} {t}/b.ckpt --format=keras", "--format keras: expected one of"),
    ("convert {ckpt} {t}/b.ckpt --trained_on VOC", "expected DATA:SPLIT"),
    ("export --ckpt_path={ckpt} --out={t}/a.tflite", "its suffix must be one of"),
    ("export --ckpt_path={ckpt} --out={t}/a.onnx --eval.scales=a", "expected a list"),
    ("benchmark", "a command is missing, like step, data, evaluation, crf, network"),
    ("benchmark speed", "'speed' is unknown: expected one of step, data, evaluation, crf, network"),
    ("benchmark step --precision=int8", "one of float32, bfloat16, float16"),
    ("benchmark step --batch_size=0", "--batch_size 0: expected a number > 0"),
    ("benchmark data", "--root is missing"),
    ("benchmark data --root={t}/none", "none"),
    ("benchmark crf --images={t}/none", "none"),
    ("plot_trimap", "RUNS"),
    ("plot_trimap {t}", "trimap.csv"),
    ("plot_trimap {t}/none", "none: No such file"),
    ("ablate", "FILE is missing"),
    ("ablate {t}/none.yaml", "none.yaml cannot be read"),
    ("ablate {t}/sweep.yaml --run=x", "--run is no option of ablate"),
    ("ablate {t}/sweep.yaml --jobs=0", "--jobs 0: expected a number > 0"),
    ("ablate {t}/sweep.yaml --runs_dir={t}/runs --model.lrr=1", "--model.lrr is no option of fit"),
    ("ablate {t}/sweep_twice.yaml", "sweep_twice.yaml has method twice, in line 1 and in line 2"),
    ("ablate {t}/laughs.yaml", "laughs.yaml holds more than"),
    ("ablate {t}/latin.yaml", "latin.yaml, line 1: not UTF-8"),
    ("ablate {t}/bayes.yaml", "only grid is run here"),
    ("prepare", "a command is missing"),
    ("prepare vok", "'vok' is unknown"),
    ("prepare voc", "--root is missing"),
    ("prepare voc --rooot=x", "--rooot is no option of voc: did you mean --root?"),
    ("prepare check", "--data is missing"),
    ("prepare check --data=VOC --data.root={t}", "{t}"),
]


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """The folders that the table names."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    whole = trained.read_bytes()
    (folder / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    data = tmp_path_factory.mktemp("data")
    (data / "classes.txt").write_text("sky\nroad\n")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (data / kind / split).mkdir(parents=True)
        cv2.imwrite(str(data / f"images/{split}/a.jpg"), np.zeros((40, 40, 3), np.uint8))
        cv2.imwrite(str(data / f"labels/{split}/a.png"), np.eye(40, dtype=np.uint8))
    write_frame(data / "synthia/RGB/0000000.png", (40, 40, 3))
    write_frame(data / "synthia/GT/LABELS/0000000.png", (40, 40, 3))  # as Pillow would save it
    write_frame(data / "gta5/images/00001.png", (40, 40, 3))
    write_frame(data / "gta5/labels/00001.png", (40, 40, 3), color=(128, 64, 128))
    return {"t": folder, "ckpt": trained, "data": data}


def write_frame(path, shape, color=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, color, np.uint8))


@pytest.mark.parametrize(("line", "words"), MISTAKES)
def test_a_mistake_is_one_sentence_and_code_2(line, words, place, capsys, monkeypatch):
    monkeypatch.chdir(place["t"])
    command, *argv = shlex.split(line.format(**place))
    before = sorted(place["t"].iterdir())
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command](argv)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("error: ") or "\nerror: " in said
    last = said.rpartition("error: ")[2]
    assert words.format(**place) in last
    assert len(last.splitlines()) <= 4
    assert "Traceback" not in said
    assert "Union" not in said
    assert sorted(place["t"].iterdir()) == before


def test_the_table_has_rows_for_all_commands():
    assert {line.split(" ")[0] for line, _ in MISTAKES} == set(COMMANDS)
    assert len(MISTAKES) >= 60


def test_a_cpu_without_enough_memory_gets_a_sentence(place, capsys, monkeypatch):
    def no_room(*args):
        return torch.empty(2**50)

    monkeypatch.setattr("deeplab_lit.segment.segmenter.Segmenter.many", no_room)
    with pytest.raises(SystemExit) as stop:
        predict.main([*shlex.split(PREDICT.format(**place))[1:], "--num_workers=0"])
    assert stop.value.code == 2
    assert "error: out of memory" in capsys.readouterr().err
