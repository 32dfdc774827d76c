"""CLIP-Dissect: speed and memory at the seed report's size, and labels where truth is known.

    python benchmarks/dissect.py speed [ROUNDS] [CONCEPTS]    63,305 images, 1,768 units in 3 layers
    python benchmarks/dissect.py quality PROBE    output units, trained and untrained

`speed` runs label_units, the plain loop over units, and that loop with the softmax made anew for
each layer, as the authors' scripts do, each in a process of its own, on the same made-up tables
(20,000 concepts), and compares time, peak memory and labels. Where other work shares the machine,
OMP_NUM_THREADS=1 and the processor time tell more than the clock.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

LAYERS = {"layer3": 256, "layer4": 512, "fc": 1000}
IMAGES, CONCEPTS, DIMENSIONS = 63_305, 20_000, 512
TOP_K = 100


def tables(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Make activations (half of what they are is in the embeddings), image and text rows."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((IMAGES, DIMENSIONS), dtype=np.float32)
    texts = rng.standard_normal((CONCEPTS, DIMENSIONS), dtype=np.float32)
    for rows in (images, texts):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    activations = {}
    for layer, units in LAYERS.items():
        directions = rng.standard_normal((DIMENSIONS, units), dtype=np.float32)
        noise = rng.standard_normal((IMAGES, units), dtype=np.float32)
        activations[layer] = images @ directions + noise
    return activations, images, texts


def ours(folder: Path) -> list[int]:
    """Return every unit's concept by number, from label_units."""
    from xailib.dissect.concepts import from_names
    from xailib.dissect.label import label_units

    activations, images, texts = load(folder)
    concepts = from_names([str(number) for number in range(len(texts))], "numbers")
    table = label_units(activations, images, texts, concepts, top_k=TOP_K)
    return [int(name) for name in table["concept"]]


def plain(folder: Path) -> list[int]:
    """Return the same from the formula as it stands: the whole softmax, then unit by unit."""
    activations, images, texts = load(folder)
    probability = softmax(images, texts)
    return [label for values in activations.values() for label in literal(probability, values)]


def scripts(folder: Path) -> list[int]:
    """Return the same as the authors' scripts do: as `plain`, with a new softmax each layer."""
    activations, images, texts = load(folder)
    labels: list[int] = []
    for values in activations.values():
        labels += literal(softmax(images, texts), values)
    return labels


def softmax(images: np.ndarray, texts: np.ndarray) -> torch.Tensor:
    """Return how well each image fits each concept, as a whole."""
    return torch.softmax(10 * (torch.from_numpy(images) @ torch.from_numpy(texts).T), dim=1)


def literal(probability: torch.Tensor, values: np.ndarray) -> list[int]:
    """Label one layer's units, one by one."""
    chances = (0.998 - torch.arange(TOP_K) / TOP_K * (0.998 - 0.97))[:, None]
    top = torch.topk(torch.from_numpy(np.array(values, np.float32)), TOP_K, dim=0).indices
    rows = []
    for unit in range(values.shape[1]):
        seen = probability.gather(0, top[:, unit : unit + 1].expand(-1, probability.shape[1]))
        rows.append(torch.log(1 + chances * (seen - 1) + 1e-7).sum(0, keepdim=True))
    evidence = torch.cat(rows)
    frequency = torch.logsumexp(evidence, 0) - np.log(len(evidence))
    return (evidence - frequency).argmax(1).tolist()


def load(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Map the tables that `speed` wrote."""
    rows = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in LAYERS}
    return rows, np.load(folder / "images.npy"), np.load(folder / "texts.npy")


def measured(way: str, folder: str) -> None:
    """Print what one way took and gave, as JSON; `speed` calls this in a new process."""
    work = {"ours": ours, "plain": plain, "scripts": scripts}[way]
    import xailib.dissect.label  # noqa: F401  # imports are not what is measured

    start, processor = time.perf_counter(), time.process_time()
    labels = work(Path(folder))
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {"seconds": seconds, "processor": processor, "gigabytes": peak, "labels": labels}
    print(json.dumps(result))


def speed(rounds: str = "1", concepts: str = str(CONCEPTS)) -> None:
    """Compare the ways in turn, and print the least that each took."""
    with tempfile.TemporaryDirectory() as folder:
        activations, images, texts = tables()
        written = {**activations, "images": images, "texts": texts[: int(concepts)]}
        for name, rows in written.items():
            np.save(Path(folder, name), rows)
        found: dict[str, dict] = {}
        for way in ("ours", "plain", "scripts") * int(rounds):
            command = [sys.executable, __file__, "measured", way, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            one = json.loads(done.stdout)
            print(
                f"{way}: {one['seconds']:.1f} s ({one['processor']:.1f} s of processor time), "
                f"peak {one['gigabytes']:.2f} GB",
                flush=True,
            )
            for key in ("seconds", "processor"):
                one[key] = min(one[key], found.get(way, one)[key])
            found[way] = one
    for way in ("plain", "scripts"):
        same = np.mean(np.equal(found["ours"]["labels"], found[way]["labels"]))
        print(
            f"{way} to ours: time {found[way]['seconds'] / found['ours']['seconds']:.2f}, "
            f"processor time {found[way]['processor'] / found['ours']['processor']:.2f}, "
            f"same labels {same:.4f}"
        )


def quality(folder: str) -> None:
    """Label a trained and an untrained network's output units on a folder of ImageNet pictures."""
    from xailib.dissect.activations import record_activations
    from xailib.dissect.concepts import load_concepts
    from xailib.dissect.label import evaluate_output_units, label_units
    from xailib.encoders.load import load_encoder
    from xailib.images.probe import load_probe
    from xailib.networks.classifier import load_classifier

    probe = load_probe(folder)
    encoder = load_encoder("conse:tf_efficientnet_lite1")
    concepts = load_concepts("categories:tf_efficientnet_lite0")
    images, texts = encoder.encode_images(probe), encoder.encode_texts(concepts.names)
    print(f"{len(probe)} images, {len(concepts)} concepts, {encoder.label}")
    for weights in (None, "random"):
        net = load_classifier("tf_efficientnet_lite0", weights)
        layer = net.dissect_layers[-1]
        with tempfile.TemporaryDirectory() as place:
            recorded = record_activations(net, [layer], probe, folder=place)
            for measure, options in (("soft_wpmi", {"top_k": 5}), ("cos_similarity_cubed", {})):
                table = label_units(recorded, images, texts, concepts, measure=measure, **options)
                found = evaluate_output_units(table, layer, net.class_names, concepts, encoder)
                print(
                    f"{net.weights}, {measure} {options}: right {found.accuracy:.3f} "
                    f"({found.accuracy_low:.3f} to {found.accuracy_high:.3f}; at random "
                    f"{found.random_accuracy:.4f}), cosine {found.cosine:.3f} "
                    f"(at random {found.random_cosine:.3f})"
                )


if __name__ == "__main__":
    actions = {"speed": speed, "quality": quality, "measured": measured}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    actions[sys.argv[1]](*sys.argv[2:])
