"""Tiny networks of every family that classifiers come from, each loadable as a user's own file.

``load_classifier("tests/families.py:torchvision_resnet")`` gives one with random weights; widths
and depths are the constructors' own arguments.
"""

import timm
from nets import CATEGORIES, Plain
from timm.models import convnext, densenet, mlp_mixer, regnet, resnet, swin_transformer, vgg
from timm.models import vision_transformer as vit
from torch import Tensor, nn
from torchvision import models as tv
from torchvision.transforms import functional as F  # noqa: N812

from xailib.networks.preprocessing import Preprocessing

SIDE = 64


def colour(side: int = SIDE) -> Preprocessing:
    return Preprocessing((side, side), side, (0.45, 0.5, 0.4), (0.25, 0.2, 0.3))


def ready(module: nn.Module, categories: int = CATEGORIES, side: int = SIDE):
    """Return what a user's function returns, with batch norms that have seen something."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    for name, weight in module.named_parameters():
        if name.rpartition(".")[2].startswith("gamma"):  # starts at 1e-5: scores like rounding
            nn.init.uniform_(weight, 0.5, 1)
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.out_features == categories:
            nn.init.normal_(part.weight, std=0.5)
    return module, colour(side), [f"thing {index}" for index in range(categories)]


def network(make, *options):
    """Return a function as a user's file has it: it makes this network, see `ready`."""
    return lambda: ready(make(), *options)


def by_name(name: str, **sizes):
    """Return the same for one of timm's names."""
    return network(lambda: timm.create_model(name, num_classes=CATEGORIES, **sizes))


SMALL = {"num_classes": CATEGORIES}
torchvision_densenet = network(lambda: tv.DenseNet(8, (2, 2, 2), 16, **SMALL))
torchvision_mobilenet_v2 = network(lambda: tv.mobilenet_v2(width_mult=0.25, **SMALL))
torchvision_mobilenet_v3 = network(lambda: tv.mobilenet_v3_small(width_mult=0.25, **SMALL))
torchvision_swin = network(lambda: tv.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], **SMALL))


def blocks():
    return tv.ResNet(tv.resnet.BasicBlock, [1, 1, 1, 1], **SMALL)


torchvision_resnet = network(blocks)


@network
def torchvision_vgg():
    net = tv.VGG(tv.vgg.make_layers([8, "M", 16, "M", 512, "M"]), CATEGORIES, init_weights=False)
    net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, CATEGORIES)
    return net


@network
def torchvision_efficientnet():
    conf = tv.efficientnet.MBConvConfig
    stages = [
        conf(1, 3, 1, 32, 16, 1, 0.25, 1),
        conf(6, 3, 2, 16, 24, 1, 0.25, 1),
        conf(6, 5, 2, 24, 40, 1, 0.25, 1),
    ]
    return tv.EfficientNet(stages, 0.2, **SMALL)


@network
def torchvision_convnext():
    block = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([block(8, 16, 1), block(16, None, 1)], **SMALL)


@network
def torchvision_regnet():
    sizes = {"depth": 4, "w_0": 8, "w_a": 8.0, "w_m": 2.0, "group_width": 8, "se_ratio": 0.25}
    return tv.RegNet(tv.regnet.BlockParams.from_init_params(**sizes), stem_width=8, **SMALL)


@network
def torchvision_vit():
    net = tv.VisionTransformer(SIDE, 16, 2, 2, 16, 32, **SMALL)
    nn.init.normal_(net.heads.head.weight)  # torchvision starts with zeros: every score alike
    return net


@network
def timm_resnet():
    widths = {"channels": (8, 12, 16, 20), "stem_width": 8}
    return resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), **widths, **SMALL)


@network
def timm_vgg():
    net = vgg.VGG([8, "M", 16, "M"], CATEGORIES, mlp_ratio=0.01)
    net.pre_logits = vgg.ConvMlp(16, 32, kernel_size=7, mlp_ratio=0.5)  # 4096 by default
    net.head = vgg.ClassifierHead(32, CATEGORIES)
    return net


@network
def timm_regnet():
    conf = regnet.RegNetCfg(depth=6, w0=8, wa=12.0, wm=2.0, group_size=8, stem_width=8)
    return regnet.RegNet(conf, **SMALL)


@network
def timm_convnext():
    return convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), **SMALL)


@network
def timm_mixer():
    sizes = {"img_size": SIDE, "patch_size": 16, "num_blocks": 2, "embed_dim": 24}
    return mlp_mixer.MlpMixer(CATEGORIES, **sizes)


timm_densenet = network(lambda: densenet.DenseNet(8, (2, 2, 2), **SMALL))
timm_mobilenet = by_name("mobilenetv2_050")
timm_efficientnet = by_name("test_efficientnet")
timm_nfnet = by_name("test_nfnet")
timm_byobnet = by_name("test_byobnet")
VIT = {"img_size": SIDE, "depth": 2, "embed_dim": 24, "num_heads": 2}
timm_vit = network(
    lambda: vit.VisionTransformer(SIDE, 16, embed_dim=16, depth=2, num_heads=2, **SMALL)
)
timm_cait = by_name("cait_xxs24_224", **VIT)
timm_convit = by_name("convit_tiny", local_up_to_layer=1, **VIT)
timm_xcit = by_name("xcit_nano_12_p16_224", **VIT)
timm_distilled = by_name("deit_tiny_distilled_patch16_224", **VIT)
timm_beit = by_name("beit_base_patch16_224", **VIT)
timm_pooled_vit = by_name("vit_tiny_patch16_224", class_token=False, global_pool="avg", **VIT)
timm_visformer = by_name("visformer_tiny", init_channels=8, **{**VIT, "depth": (1, 1, 1)})
PYRAMID = {"depths": (1,) * 4, "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)}
timm_pvt = by_name("pvt_v2_b0", **PYRAMID)
timm_twins = by_name("twins_svt_small", img_size=SIDE, **PYRAMID)
SWIN = {"img_size": SIDE, "depths": (1, 1), "embed_dim": 12, "num_heads": (2, 2)}
timm_swin_v2 = by_name("swinv2_tiny_window8_256", window_size=4, **SWIN)


timm_swin = network(lambda: swin_transformer.SwinTransformer(window_size=4, **SWIN, **SMALL))


def gray(image) -> Tensor:
    """What a network with one colour channel is given."""
    return F.to_tensor(F.rgb_to_grayscale(F.resize(image, [32, 32]))) * 2 - 0.4


one_category = network(lambda: Plain(1), 1, 32)
two_categories = network(lambda: Plain(2), 2, 32)
as_many_categories_as_channels = network(lambda: Plain(12), 12, 32)
small_input = network(blocks, CATEGORIES, 32)
not_finite = network(lambda: Plain(out=lambda scores: scores / 0), CATEGORIES, 32)
another_input = network(lambda: Plain(channels=4), CATEGORIES, 32)


def grayscale():
    module, _, names = ready(Plain(channels=1))
    return module, gray, names


def names_as_numbers():
    module, transform, _ = ready(Plain(), side=32)
    return module, transform, list(range(CATEGORIES))


def raising():
    raise KeyError("where are my weights?")


FAMILIES = [name for name in dict(globals()) if name.startswith(("torchvision_", "timm_"))]
