"""What re-implementations of DeepLabv2 get wrong, each with the tests that hold it here.

1. In the authors' network the stride sits on the 1×1, pooling rounds up, and the first blocks of
   res4 and res5 are dilated too:
   - test_protocol.py::test_only_the_first_1x1_of_res3_and_its_shortcut_are_strided
   - network/test_atrous.py::test_dense_features_subsampled_equal_the_strided_networks
   - network/test_atrous.py::test_caffe_rates_are_the_released_ones_from_the_first_block_on
   - network/test_backbone.py::test_feature_map_has_the_size_of_the_released_networks
2. Corners are aligned throughout; the loss at 0.75 is on the grid of scale 1, at 0.5 on its own;
   torch's "nearest" takes the wrong label:
   - test_protocol.py::test_corners_are_aligned_unless_asked_otherwise
   - test_protocol.py::test_labels_are_not_those_of_torchs_nearest
   - network/test_deeplab.py::test_fused_logits_are_the_image_sized_ones_at_every_eighth_pixel
   - network/test_multiscale.py::test_aligned_sizes_are_those_of_caffes_interp
   - training/test_loss.py::test_each_scale_is_scored_where_the_authors_score_it
   - training/test_loss.py::test_aligned_corners_take_every_8th_pixel
3. Frozen normalization: neither statistics nor affine move, also when Lightning calls train():
   - test_protocol.py::test_frozen_normalization_has_no_mode
   - training/test_module.py::test_frozen_statistics_stay_as_loaded
   - training/test_optimizer.py::test_frozen_normalization_is_not_in_the_optimizer
4. The loss is the sum of four terms, not their mean; the learning rate is tuned for that:
   - training/test_loss.py::test_loss_is_the_sum_of_all_scales_and_their_maximum
5. The head's biases learn at 20 times the rate, without weight decay:
   - training/test_schedule.py::test_every_group_learns_as_the_released_solvers_say
   - training/test_optimizer.py::test_two_steps_worked_out_by_hand
6. Ten accumulated images are one step, and the learning rate counts such steps:
   - training/test_module.py::test_ten_batches_of_one_image_are_a_step_as_with_iter_size_10
   - training/test_schedule.py::test_accumulated_batches_count_as_one_step
   - training/test_schedule.py::test_every_group_learns_as_the_released_solvers_say
7. Void survives scaling and never counts:
   - data/test_transforms.py::test_labels_are_never_blended
   - data/test_transforms.py::test_padding_is_mean_color_and_void_at_the_bottom_and_right_only
   - training/test_loss.py::test_labels_are_never_mixed
   - training/test_loss.py::test_void_never_counts
8. mIoU is that of one confusion matrix over the set, background included, at the images' own size:
   - test_protocol.py::test_miou_is_not_the_mean_over_images
   - scoring/test_metric.py::test_image_by_image_is_all_at_once
   - training/test_module.py::test_every_pixel_of_every_image_is_scored_once
   - loading/test_datamodule.py::test_evaluation_takes_every_image_once_at_native_size
9. train_aug holds no image of val:
   - data/test_voc.py::test_train_aug_without_a_list_is_every_mask_that_val_does_not_name
   - data/test_voc.py::test_train_aug_follows_its_list_but_never_holds_val
   - data/test_voc.py::test_train_aug_from_sbd_keeps_voc_masks_and_never_holds_val
10. Starting from MS-COCO is worth three points; every configuration says what it starts from:
   - test_protocol.py::test_every_config_says_what_it_starts_from
   - test_configs.py::test_a_name_in_the_tables_is_a_setting
"""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from deeplab_lit.network.backbone import build_backbone
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.scoring.metric import SegmentationScores
from deeplab_lit.training.loss import subsample

TESTS = Path(__file__).parent
CONFIGS = Path(__file__).parents[1] / "configs"
TRAPS = {
    int(number): re.findall(r"- (\S+)::(\w+)", text)
    for number, text in re.findall(r"(?ms)^(\d+)\. (.*?)(?=^\d+\. |\Z)", __doc__)
}


@pytest.mark.parametrize("trap", range(1, 11))
def test_every_trap_has_tests_and_they_exist(trap):
    assert TRAPS[trap]
    for file, name in TRAPS[trap]:
        tree = ast.parse((TESTS / file).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


@pytest.mark.parametrize(
    ("style", "conv", "ceil"), [("caffe", "conv1", True), ("torchvision", "conv2", False)]
)
def test_only_the_first_1x1_of_res3_and_its_shortcut_are_strided(style, conv, ceil):
    with torch.device("meta"):
        net = build_backbone("resnet101", 8, style, "frozen")
    convs = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    strided = {name for name, m in convs.items() if m.stride != (1, 1)}
    assert strided == {"conv1", f"layer2.0.{conv}", "layer2.0.downsample.0"}
    assert convs["layer2.0.conv1"].kernel_size == convs["layer2.0.downsample.0"].kernel_size
    assert (net.maxpool.stride, net.maxpool.ceil_mode) == (2, ceil)


def test_corners_are_aligned_unless_asked_otherwise():
    assert inspect.signature(DeepLabV2).parameters["align_corners"].default is True
    for path in CONFIGS.rglob("*.yaml"):
        assert "align_corners" not in yaml.safe_load(path.read_text("utf-8")).get("model", {})


def test_labels_are_not_those_of_torchs_nearest():
    row = (torch.arange(321) % 256).to(torch.uint8)
    mask = row.expand(1, 321, 321)
    found = subsample(mask, (41, 41), align_corners=True)[0, 0].tolist()
    nearest = F.interpolate(mask[None].float(), (41, 41), mode="nearest")[0, 0, 0].int().tolist()
    assert found == [8 * i % 256 for i in range(41)]
    assert nearest == [int(i * 321 / 41) % 256 for i in range(41)]
    assert (8 * 40, int(40 * 321 / 41)) == (320, 313)  # seven pixels off at the end of a crop
    assert found[-1] - nearest[-1] == 7


def test_frozen_normalization_has_no_mode():
    net = build_backbone("resnet18", 8, "caffe", "frozen")
    for name, buffer in net.named_buffers():
        nn.init.uniform_(buffer, 0.5 if "var" in name else 0.1, 1.0)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    x = torch.randn(2, 3, 33, 33)
    expected = net.eval()(x)
    for _ in range(2):  # as Lightning does around a validation
        torch.testing.assert_close(net.train()(x), expected)
        torch.testing.assert_close(net.eval()(x), expected)
    assert all(buffer.equal(before[name]) for name, buffer in net.named_buffers())
    assert not [
        name for name, _ in net.named_parameters() if "bn" in name or "downsample.1" in name
    ]


def test_miou_is_not_the_mean_over_images():
    metric = SegmentationScores(2)
    for truth, prediction in (([0, 0, 0, 0], [0, 0, 0, 0]), ([0, 0, 1, 1], [0, 1, 1, 0])):
        metric.update(torch.tensor([prediction]), torch.tensor([truth], dtype=torch.uint8))
    # over the set: class 0 5/(6 + 6 − 5), class 1 1/(2 + 2 − 1); a mean over the two images would
    # be (1 + ⅓)/2
    assert metric.compute().miou == pytest.approx((5 / 7 + 1 / 3) / 2)


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(CONFIGS.rglob("*.yaml")) if not {"ablations", "crf"} & set(p.parts)],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_says_what_it_starts_from(path):
    text = path.read_text("utf-8")
    header = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#"))
    weights = yaml.safe_load(text).get("model", {}).get("weights")
    if "adaptation" in path.parts and weights is None:
        return  # an overlay that leaves its base's as they are
    weights = weights or "imagenet"  # of every base of the paper's tables
    words = {"imagenet": "ImageNet", "none": "from scratch", "deeplab/resnet101_coco": "MS-COCO"}
    published = "MS-COCO, says its author; on ImageNet, say papers"
    words |= {"adaptsegnet/init": published}
    words |= {
        "DeepLab_resnet_pretrained_imagenet.pth": "ImageNet",
        "advsemiseg/coco": "COCO",
        "deeplabv1_resnet101-imagenet.pth": "starts from ImageNet",
        "vgg16_hed_bsds.safetensors": "ImageNet in Caffe and then for edges",
    }
    assert re.search(words[weights], header)
    of_others = {"adaptation", "semi", "weak"} & set(path.parts)  # than the paper
    if path.parent != CONFIGS and not of_others:
        init = re.search(r" Init: (.*?) Schedule: ", header)[1]
        assert re.search(words[weights], init)
        assert ("MS-COCO" in init) == (weights == "deeplab/resnet101_coco")
