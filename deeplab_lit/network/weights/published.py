"""Published weight files: what they are called, where they are, what is known of them.

The page for people is formats/README.md; a test compares it with this table. Addresses stand in
the repositories' own code and pages, scores in their READMEs and issues, or in the paper. No file
of the table was at hand when it was written.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches

UNKNOWN = "unknown"
KAZUTO1011 = "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0"
MERCED = "http://vllab.ucmerced.edu/ytsai/CVPR18"
RESNET101_ZIP, VGG16_ZIP = (
    f"http://liangchiehchen.com/projects/released/{name}/prototxt_and_model.zip"
    for name in ("deeplab_aspp_resnet101", "deeplab_aspp_vgg16")
)
MIT = "MIT (of its repository)"
RESEARCH = "research only, not commercial (its README)"
NOT_STATED = "not stated in its repository"
NOT_KNOWN = "not known"  # the page was not at hand


@dataclass(frozen=True)
class Quoted:
    """A score that was published of a file, without the CRF.

    Attributes:
        miou: in percent.
        split: like "VOC:val".
        source: where it stands, and what is unusual in how it was measured.
    """

    miou: float
    split: str
    source: str

    def in_words(self) -> str:
        """Return the score in words: "VOC val 76.65 (its README)"."""
        return f"{self.split.replace(':', ' ')} {self.miou} ({self.source})"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published weight file.

    Attributes:
        file: its name.
        origin: whose it is.
        init: what the backbone was first trained on, as in Provenance.
        trained_on: splits that it was trained on to segment.
        about: what else is known of where it comes from, disputed or unknown.
        pattern: of names that it, or files like it, have besides.
        backbone: of its network.
        classes: outputs of its head; None: of no head that was trained.
        by_content: whether other files have that name too, since Caffe calls those of every
            training alike; they are told apart by backbone and classes.
        branches: of its head that were trained; None: all.
        name: by which commands fetch it; None: it has no address of its own.
        url: where it lies, or the .zip in which it lies.
        license: as far as it is known.
        quoted: a published score; None: of no score on images that it has not seen.
    """

    file: str
    origin: str
    init: str
    trained_on: tuple[str, ...] = ()
    about: str | None = None
    pattern: str | None = None
    backbone: str = "resnet101"
    classes: int | None = None
    by_content: bool = False
    branches: int | None = None
    name: str | None = None
    url: str = ""
    license: str = NOT_KNOWN
    quoted: Quoted | None = None

    @property
    def is_zipped(self) -> bool:
        """Return whether it lies in a .zip, with others."""
        return self.url.endswith(".zip")

    @property
    def is_plain_http(self) -> bool:
        """Return whether it comes unencrypted, so that anybody on the way can exchange it."""
        return self.url.startswith("http:")

    def is_called(self, name: str) -> bool:
        """Return whether a file of that name is this one, or one like it."""
        return name == self.file or re.fullmatch(self.pattern or "", name) is not None


PUBLISHED = (
    Published(
        file="train_iter_20000.caffemodel",
        origin="the authors, deeplab_aspp_resnet101",
        init="coco",
        trained_on=("VOC:train_aug",),
        classes=21,
        by_content=True,
        name="deeplab/resnet101_voc12",
        url=RESNET101_ZIP,
        quoted=Quoted(76.35, "VOC:val", "paper"),
    ),
    Published(
        file="train2_iter_20000.caffemodel",
        origin="the authors, deeplab_aspp_resnet101",
        init="coco",
        trained_on=("VOC:trainval_aug",),
        classes=21,
        by_content=True,
        name="deeplab/resnet101_voc12_trainval",
        url=RESNET101_ZIP,
    ),
    Published(
        file="init.caffemodel",
        origin="the authors, deeplab_aspp_resnet101",
        init="coco",
        pattern=r"init.*",
        by_content=True,
        name="deeplab/resnet101_coco",
        url=RESNET101_ZIP,
    ),
    Published(
        file="train_iter_20000.caffemodel",
        origin="the authors, deeplab_aspp_vgg16",
        init="imagenet",
        trained_on=("VOC:train_aug",),
        backbone="vgg16",
        classes=21,
        by_content=True,
        name="deeplab/vgg16_voc12",
        url=VGG16_ZIP,
        quoted=Quoted(68.96, "VOC:val", "paper"),
    ),
    Published(
        file="train2_iter_20000.caffemodel",
        origin="the authors, of VGG-16",
        init="imagenet",
        trained_on=("VOC:trainval_aug",),
        backbone="vgg16",
        classes=21,
        by_content=True,
    ),
    Published(
        file="init.caffemodel",
        origin="the authors, deeplab_aspp_vgg16",
        init="imagenet",
        pattern=r"init.*",
        backbone="vgg16",
        by_content=True,
        name="deeplab/vgg16_imagenet",
        url=VGG16_ZIP,
    ),
    Published(
        file="vgg16_20M.caffemodel",
        origin="the authors, DeepLab-LargeFOV",
        init="imagenet",
        backbone="vgg16",
        name="deeplab/largefov_imagenet",
        url="http://www.cs.jhu.edu/~alanlab/ccvl/init_models/vgg16_20M.caffemodel",
    ),
    Published(
        file="deeplabv2_resnet101_msc-vocaug-20000.pth",
        origin="kazuto1011/deeplab-pytorch",
        init="coco",
        trained_on=("VOC:train_aug",),
        classes=21,
        name="kazuto1011/voc12",
        url=f"{KAZUTO1011}/deeplabv2_resnet101_msc-vocaug-20000.pth",
        license=MIT,
        quoted=Quoted(76.65, "VOC:val", "its README"),
    ),
    Published(
        file="deeplabv2_resnet101_msc-vocaug.pth",
        origin="kazuto1011/deeplab-pytorch, converted from the authors' train2",
        init="coco",
        trained_on=("VOC:trainval_aug",),
        classes=21,
    ),
    Published(
        file="deeplabv2_resnet101_msc-cocostuff10k-20000.pth",
        origin="kazuto1011/deeplab-pytorch",
        init="coco",
        trained_on=("CocoStuff10k:train",),
        classes=182,
        name="kazuto1011/cocostuff10k",
        url=f"{KAZUTO1011}/deeplabv2_resnet101_msc-cocostuff10k-20000.pth",
        license=MIT,
        quoted=Quoted(34.8, "CocoStuff10k:val", "its README, images and masks warped to 513×513"),
    ),
    Published(
        file="deeplabv2_resnet101_msc-cocostuff164k-100000.pth",
        origin="kazuto1011/deeplab-pytorch",
        init="coco",
        trained_on=("CocoStuff164k:train",),
        classes=182,
        name="kazuto1011/cocostuff164k",
        url=f"{KAZUTO1011}/deeplabv2_resnet101_msc-cocostuff164k-100000.pth",
        license=MIT,
        quoted=Quoted(39.1, "CocoStuff164k:val", "its README"),
    ),
    Published(
        file="deeplabv1_resnet101-coco.pth",
        origin="kazuto1011/deeplab-pytorch, converted from the authors' init",
        init="coco",
        about="kazuto1011's copy of the authors' init.caffemodel, trained on MS-COCO",
    ),
    # opened by nobody here: README of AdvCAM; kazuto1011 107; BBAM 1
    Published(
        file="deeplabv1_resnet101-imagenet.pth",
        origin="README of jbeomlee93/AdvCAM",
        init="imagenet",
        about="shared by the author of AdvCAM, and used by RIB, ReCAM, LPCAM and CLIP-ES; how it "
        "was made is written nowhere, and kazuto1011's network takes only values of Caffe's kind. "
        "A file of the same author for BBAM is disputed: with it one user got the scores that "
        "MS-COCO gives (BBAM, issue 1)",
    ),
    Published(
        file="MS_DeepLab_resnet_trained_VOC.pth",
        origin="isht7/pytorch-deeplab-resnet",
        init="coco",
        trained_on=("VOC:train_aug",),
        classes=21,
        quoted=Quoted(75.54, "VOC:val", "its README"),
    ),
    Published(
        file="MS_DeepLab_resnet_pretrained_COCO_init.pth",
        origin="isht7/pytorch-deeplab-resnet",
        init="coco",
    ),
    Published(
        file="GTA2Cityscapes_multi-ed35151c.pth",
        origin="wasidennis/AdaptSegNet",
        init=UNKNOWN,
        trained_on=("GTA5:all", "Cityscapes:train"),
        about="as that of DeepLab_resnet_pretrained_init.pth",
        pattern=r"GTA2Cityscapes_multi-.*\.pth",
        classes=19,
        branches=2,
        name="adaptsegnet/gta5",
        url=f"{MERCED}/GTA2Cityscapes_multi-ed35151c.pth",
        license=RESEARCH,
        quoted=Quoted(42.35, "Cityscapes:val", "its issue 56, images seen at 1024×512"),
    ),
    Published(
        file="DeepLab_resnet_pretrained_init-f81d91e8.pth",
        origin="wasidennis/AdaptSegNet",
        init=UNKNOWN,
        about="disputed: MS-COCO by its author, ImageNet by papers that start from it",
        pattern=r"DeepLab_resnet_pretrained_(init|imagenet).*\.pth",
        name="adaptsegnet/init",
        url=f"{MERCED}/DeepLab_resnet_pretrained_init-f81d91e8.pth",
        license=RESEARCH,
    ),
    Published(
        file="resnet101COCO-41f33a49.pth",
        origin="hfslyc/AdvSemiSeg",
        init="coco",
        name="advsemiseg/coco",
        url="http://vllab1.ucmerced.edu/~whung/adv-semi-seg/resnet101COCO-41f33a49.pth",
        license=NOT_STATED,
    ),
    # torchvision's first and second ImageNet weights, and those of its old versions
    Published(
        file="resnet101-63fe2227.pth",
        origin="torchvision",
        init="imagenet",
        pattern=r"resnet18-(5c106cde|f37072fd)\.pth|resnet34-(333f7ec4|b627a593)\.pth|"
        r"resnet50-(19c8e357|0676ba61|11ad3fa6)\.pth|resnet101-(5d3b4d8f|cd907fc2)\.pth|"
        r"resnet152-(b121ed2d|394f9c45|f82ba261)\.pth",
    ),
    Published(file="vgg16-397923af.pth", origin="torchvision", init="imagenet", backbone="vgg16"),
)
NAMED = {file.name: file for file in PUBLISHED if file.name is not None}
LIST = "python -m deeplab_lit.convert --list"


def trained_branches(file: str) -> int | None:
    """Return how many branches of a published file's head were trained; None: all, or not known."""
    return next((entry.branches for entry in PUBLISHED if entry.file == file), None)


def meant(name: str) -> str | None:
    """Return the sentence on a slip in a name of published weights; None if none is meant.

    Args:
        name: as typed; there is neither such a file nor such a name.
    """
    owner, _, rest = name.partition("/")
    if not rest or "/" in rest or rest.endswith((".pth", ".ckpt", ".caffemodel", ".safetensors")):
        return None
    near = get_close_matches(name, NAMED, 1, cutoff=0.7)
    if not near and owner not in {known.partition("/")[0] for known in NAMED}:
        return None
    guess = f": did you mean {near[0]}?" if near else ";"
    return f"{name}: no such file, and no published weights of that name{guess} {LIST} shows all"
