#!/usr/bin/env python3
"""Trains a small neural network to read handwritten digits (MNIST), with NumPy alone.

The images come from the four MNIST files in the data folder, in the IDX format they are published in, gzipped or
not. Without them the program draws a stand-in set of its own, writes it in the same format, and reads it back
the same way, so that it works without a network.

It writes metrics.jsonl (a line an epoch) and model.npz into the output folder. The same arguments and data give the
same bytes in both: every random number comes from --seed, the files hold no times, and matrix products use one
thread, because a library that splits them over threads adds up in another order.
"""

import argparse
import gzip
import io
import json
import math
import os
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

# Read by the BLAS library when NumPy loads it, hence before that import.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

try:
    import numpy as np
except ImportError:
    sys.exit("mnist.py: needs NumPy: run it in the image, or install the package python3-numpy")

SIDE = 28  # pixels
PIXELS = SIDE * SIDE
CLASSES = 10
HIDDEN = 64
EVALUATION_BATCH = 1000
IMAGES_MAX = 1_000_000  # a header may claim 2**32 images; MNIST has 60,000

DATA_DIR = Path("data")
OUTPUT_DIR = Path("output")

FILES = {
    "training images": "train-images-idx3-ubyte",
    "training labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}

# The stand-in set is data, not part of the experiment: --seed does not change it.
STAND_IN_SEED = 28
STAND_IN_TRAINING = 16_000
STAND_IN_TEST = 4_000


class Refusal(Exception):
    """What the user has to mend. The message is one line that names the file or option and says what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# IDX files: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each dimension as a
# big-endian 32-bit number, then the elements, the last dimension varying fastest.


def read_idx(path, dimensions):
    """The array of unsigned bytes in an IDX file, gzipped when its name ends in .gz."""

    def broken(why):
        return Refusal(f"{path}: {why}; replace the file (./download_mnist.sh fetches and checks it)")

    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 or header[:2] != b"\0\0":
                raise broken("not an IDX file")
            if header[2] != 8:
                raise broken(f"an IDX file of element type {header[2]:#04x} where unsigned bytes (0x08) belong")
            if header[3] != dimensions:
                raise broken(f"an IDX file with {header[3]} dimensions where {dimensions} belong")
            if len(header) < 4 + 4 * dimensions:
                raise broken("ends within its header")
            shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4"))
            if shape[0] > IMAGES_MAX or shape[1:] != (SIDE, SIDE)[: dimensions - 1]:
                raise broken(f"its header says {' x '.join(map(str, shape))}, which is no MNIST file")
            size = math.prod(shape)
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise broken(f"broken gzip data ({error})") from error
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; make it a readable file") from error
    if len(content) < size:
        raise broken(f"ends after {len(content)} of {size} elements")
    if len(content) > size:
        raise broken(f"goes on after its {size} elements")
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + np.ascontiguousarray(array, np.uint8).tobytes())


def find_files(folder):
    """Role → path of the four files; an empty dict when none of them is there."""
    found = {}
    for role, name in FILES.items():
        for path in (folder / name, folder / (name + ".gz")):
            if path.exists():
                found[role] = path
                break
    missing = [name for role, name in FILES.items() if role not in found]
    if found and missing:
        raise Refusal(f"{folder}: {', '.join(missing)} missing beside the others; add or remove (./download_mnist.sh)")
    return found


def load(files):
    """Training images, training labels, test images, test labels; an image is a row of bytes."""
    arrays = []
    for part in ("training", "test"):
        images_path, labels_path = files[f"{part} images"], files[f"{part} labels"]
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(images) == 0:
            raise Refusal(f"{images_path}: holds no images; replace the file (./download_mnist.sh)")
        if len(images) != len(labels):
            raise Refusal(f"{labels_path}: {len(labels)} labels for {len(images)} images; replace one of the files")
        if labels.max() >= CLASSES:
            raise Refusal(f"{labels_path}: label {labels.max()} is no digit; replace the file (./download_mnist.sh)")
        arrays += [images.reshape(len(images), PIXELS), labels]
    return arrays


# ---------------------------------------------------------------------------------------------------------------------
# The stand-in set: digits drawn with strokes, each turned, sheared, bent, thickened and soiled at random.
# Only additions, products, quotients and square roots are used, which every processor rounds alike, and
# RandomState, whose numbers NumPy promises never to change: the set is the same everywhere.

# Ways to write each digit in a unit square, y downwards. A stroke of two points is a line, of four a Bézier curve.
GLYPHS = (
    (
        [[(0.5, 0), (0.02, 0), (0.02, 1), (0.5, 1)], [(0.5, 1), (0.98, 1), (0.98, 0), (0.5, 0)]],
        [[(0.6, 0), (0.0, 0.1), (0.1, 1), (0.5, 1)], [(0.5, 1), (0.95, 0.95), (0.85, 0.1), (0.45, 0.08)]],
    ),
    (
        [[(0.5, 0), (0.5, 1)]],
        [[(0.28, 0.22), (0.54, 0)], [(0.54, 0), (0.54, 1)]],
        [[(0.28, 0.2), (0.52, 0)], [(0.52, 0), (0.52, 1)], [(0.25, 1), (0.8, 1)]],
    ),
    (
        [[(0.15, 0.25), (0.2, -0.1), (0.95, -0.1), (0.8, 0.35)], [(0.8, 0.35), (0.7, 0.6), (0.3, 0.8), (0.12, 1)],
         [(0.12, 1), (0.9, 1)]],
        [[(0.15, 0.2), (0.3, -0.12), (1.0, -0.05), (0.78, 0.4)], [(0.78, 0.4), (0.6, 0.75), (0.2, 1.1), (0.15, 0.85)],
         [(0.15, 0.85), (0.25, 0.65), (0.6, 1.05), (0.92, 0.92)]],
    ),
    (
        [[(0.15, 0.1), (0.55, -0.12), (1.0, 0.3), (0.42, 0.47)], [(0.42, 0.47), (1.1, 0.5), (0.8, 1.2), (0.12, 0.9)]],
        [[(0.15, 0.02), (0.82, 0.02)], [(0.82, 0.02), (0.42, 0.42)],
         [(0.42, 0.42), (1.1, 0.45), (0.85, 1.2), (0.12, 0.9)]],
    ),
    (
        [[(0.2, 0), (0.12, 0.6)], [(0.12, 0.6), (0.9, 0.55)], [(0.72, 0), (0.64, 1)]],
        [[(0.62, 0), (0.1, 0.65)], [(0.1, 0.65), (0.92, 0.65)], [(0.62, 0), (0.62, 1)]],
    ),
    (
        [[(0.85, 0.02), (0.27, 0.02)], [(0.27, 0.02), (0.2, 0.45)], [(0.2, 0.45), (0.75, 0.25), (1.15, 1.0), (0.15, 0.97)]],
        [[(0.8, 0.05), (0.3, 0.08)], [(0.3, 0.08), (0.25, 0.4)], [(0.25, 0.4), (1.1, 0.4), (0.9, 1.15), (0.15, 0.9)]],
    ),
    (
        [[(0.75, 0.03), (0.35, 0.1), (0.1, 0.5), (0.15, 0.75)], [(0.15, 0.75), (0.2, 1.1), (0.85, 1.1), (0.82, 0.72)],
         [(0.82, 0.72), (0.78, 0.42), (0.25, 0.45), (0.15, 0.75)]],
        [[(0.45, 0), (0.2, 0.3), (0.12, 0.6), (0.2, 0.8)], [(0.2, 0.8), (0.3, 1.1), (0.8, 1.05), (0.75, 0.75)],
         [(0.75, 0.75), (0.7, 0.5), (0.3, 0.6), (0.22, 0.85)]],
    ),
    (
        [[(0.12, 0.03), (0.88, 0.03)], [(0.88, 0.03), (0.4, 1.0)]],
        [[(0.12, 0.05), (0.88, 0.03)], [(0.88, 0.03), (0.55, 0.5), (0.45, 0.7), (0.42, 1.0)], [(0.32, 0.5), (0.82, 0.5)]],
    ),
    (
        [[(0.5, 0.47), (0.0, 0.35), (0.1, -0.02), (0.5, 0)], [(0.5, 0), (0.9, -0.02), (1.0, 0.35), (0.5, 0.47)],
         [(0.5, 0.47), (-0.1, 0.6), (0.05, 1.02), (0.5, 1)], [(0.5, 1), (0.95, 1.02), (1.1, 0.6), (0.5, 0.47)]],
        [[(0.8, 0.12), (0.3, -0.15), (0.0, 0.3), (0.5, 0.48)], [(0.5, 0.48), (1.1, 0.7), (0.8, 1.1), (0.45, 1)],
         [(0.45, 1), (-0.05, 0.9), (0.25, 0.6), (0.5, 0.48)], [(0.5, 0.48), (0.75, 0.35), (0.85, 0.25), (0.8, 0.12)]],
    ),
    (
        [[(0.8, 0.3), (0.8, -0.1), (0.15, -0.1), (0.15, 0.28)], [(0.15, 0.28), (0.15, 0.6), (0.75, 0.6), (0.8, 0.3)],
         [(0.8, 0.3), (0.72, 1)]],
        [[(0.85, 0.25), (0.75, -0.1), (0.15, -0.1), (0.18, 0.28)], [(0.18, 0.28), (0.22, 0.58), (0.75, 0.55), (0.85, 0.25)],
         [(0.85, 0.25), (0.9, 0.5), (0.65, 0.9), (0.25, 0.97)]],
    ),
)

FIELD_CELLS = 112  # a side of a glyph's distance field,
FIELD_LOW, FIELD_HIGH = -0.6, 1.6  # which covers more than the unit square


def distance_field(strokes):
    """For each cell of a grid, how far it is from the nearest stroke, in sides of the unit square."""
    axis = FIELD_LOW + (np.arange(FIELD_CELLS) + 0.5) * ((FIELD_HIGH - FIELD_LOW) / FIELD_CELLS)
    x, y = axis[np.newaxis, :], axis[:, np.newaxis]
    nearest = np.full((FIELD_CELLS, FIELD_CELLS), 9.0)
    for stroke in strokes:
        points = stroke
        if len(stroke) == 4:
            points = []
            for step in range(13):
                t = step / 12
                s = 1 - t
                weights = (s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t)
                points.append(tuple(sum(w * p[axis] for w, p in zip(weights, stroke)) for axis in (0, 1)))
        for (x0, y0), (x1, y1) in zip(points, points[1:]):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            off_x, off_y = x - (x0 + along * dx), y - (y0 + along * dy)
            nearest = np.minimum(nearest, off_x * off_x + off_y * off_y)
    return np.sqrt(nearest).astype(np.float32)


def draw_digits(count, random):
    """`count` images of digits and their labels."""
    fields = [[distance_field(way) for way in ways] for ways in GLYPHS]
    first = np.cumsum([0] + [len(ways) for ways in fields[:-1]])
    ways = np.array([len(ways) for ways in fields])
    fields = np.concatenate([field for ways in fields for field in ways]).ravel()

    labels = random.randint(0, CLASSES, count)
    glyphs = first[labels] + (random.random_sample(count) * ways[labels]).astype(int)

    def between(low, high):
        return (low + (high - low) * random.random_sample((count, 1))).astype(np.float32)

    # Where each pixel lies in the glyph's square: turned and sheared, bent, moved.
    x_by_x, x_by_y = between(1.15, 1.9), between(-0.5, 0.35)
    y_by_y, y_by_x = between(0.95, 1.5), between(-0.3, 0.3)
    bend_x, bend_y = between(-0.4, 0.4), between(-0.4, 0.4)
    move_x, move_y = between(0.36, 0.64), between(0.36, 0.64)
    half_width, ink = between(0.025, 0.085), between(0.55, 1.0)
    blot_x, blot_y, blot = between(-0.6, 0.6), between(-0.6, 0.6), between(-0.25, 0.3)

    axis = ((np.arange(SIDE) - (SIDE - 1) / 2) / (SIDE - 1)).astype(np.float32)
    u, v = np.tile(axis, SIDE), np.repeat(axis, SIDE)
    uu, uv, vv = u * u, u * v, v * v
    images = np.empty((count, PIXELS), np.uint8)
    scale = np.float32(FIELD_CELLS / (FIELD_HIGH - FIELD_LOW))
    for start in range(0, count, 1000):
        part = slice(start, start + 1000)
        x = x_by_x[part] * u + x_by_y[part] * v + bend_x[part] * vv + bend_y[part] * uv + move_x[part]
        y = y_by_y[part] * v + y_by_x[part] * u + bend_y[part] * uu + bend_x[part] * uv + move_y[part]
        column = np.clip((x - np.float32(FIELD_LOW)) * scale, 0, FIELD_CELLS - 1).astype(np.int32)
        row = np.clip((y - np.float32(FIELD_LOW)) * scale, 0, FIELD_CELLS - 1).astype(np.int32)
        cell = (glyphs[part, np.newaxis].astype(np.int32) * FIELD_CELLS + row) * FIELD_CELLS + column
        stroke = np.clip((half_width[part] - fields[cell]) * np.float32(20) + np.float32(0.5), 0, 1)
        # A round blot of ink, or a hole in the ink, somewhere on most images; and a little grain on all.
        off_x, off_y = u - blot_x[part], v - blot_y[part]
        inside = (off_x * off_x + off_y * off_y) < np.float32(0.018)
        grain = (random.randint(0, 256, stroke.shape, np.uint8)).astype(np.float32) * np.float32(0.35 / 255)
        level = stroke * ink[part] + inside * blot[part] * np.float32(2) + grain - np.float32(0.2)
        images[part] = np.clip(level * np.float32(255), 0, 255).astype(np.uint8)
    return images.reshape(count, SIDE, SIDE), labels.astype(np.uint8)


def write_stand_in(folder, training=STAND_IN_TRAINING, test=STAND_IN_TEST):
    """Writes the stand-in set's four IDX files into a folder."""
    random = np.random.RandomState(STAND_IN_SEED)
    for part, count in (("training", training), ("test", test)):
        images, labels = draw_digits(count, random)
        write_idx(folder / FILES[f"{part} images"], images)
        write_idx(folder / FILES[f"{part} labels"], labels)


# ---------------------------------------------------------------------------------------------------------------------
# The network: 784 inputs, one hidden layer of rectified units, softmax over ten classes; plain gradient descent.


def new_parameters(random):
    def layer(inputs, outputs):
        bound = math.sqrt(6 / inputs)
        return (bound * (2 * random.random_sample((inputs, outputs)) - 1)).astype(np.float32)

    return {
        "hidden_weights": layer(PIXELS, HIDDEN),
        "hidden_bias": np.zeros(HIDDEN, np.float32),
        "output_weights": layer(HIDDEN, CLASSES),
        "output_bias": np.zeros(CLASSES, np.float32),
    }


def forward(parameters, images):
    """The network's input, hidden layer and class probabilities for rows of bytes."""
    inputs = images.astype(np.float32) * np.float32(1 / 255)
    hidden = np.maximum(inputs @ parameters["hidden_weights"] + parameters["hidden_bias"], np.float32(0))
    scores = (hidden @ parameters["output_weights"] + parameters["output_bias"]).astype(np.float64)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return inputs, hidden, exponentials / exponentials.sum(axis=1, keepdims=True)


def losses(probabilities, labels):
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-300))


def train_batch(parameters, images, labels, learning_rate):
    """One step of gradient descent; returns the sum of the batch's losses before it."""
    inputs, hidden, probabilities = forward(parameters, images)
    loss = losses(probabilities, labels).sum()
    probabilities[np.arange(len(labels)), labels] -= 1
    towards_scores = (probabilities / len(labels)).astype(np.float32)
    towards_hidden = (towards_scores @ parameters["output_weights"].T) * (hidden > 0)
    rate = np.float32(learning_rate)
    parameters["output_weights"] -= rate * (hidden.T @ towards_scores)
    parameters["output_bias"] -= rate * towards_scores.sum(axis=0)
    parameters["hidden_weights"] -= rate * (inputs.T @ towards_hidden)
    parameters["hidden_bias"] -= rate * towards_hidden.sum(axis=0)
    return loss


def evaluate(parameters, images, labels):
    """Mean loss and share of right answers."""
    loss, right = 0.0, 0
    for start in range(0, len(images), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        probabilities = forward(parameters, images[part])[2]
        loss += losses(probabilities, labels[part]).sum()
        right += int((probabilities.argmax(axis=1) == labels[part]).sum())
    return loss / len(images), right / len(images)


def write_model(path, parameters):
    """An .npz file that numpy.load reads; unlike numpy.savez, the same bytes at any time."""
    partial = path.with_name("." + path.name + ".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name, array in parameters.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(name + ".npy", (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue())
    os.replace(partial, path)


def train(arguments):
    if arguments.data_dir != DATA_DIR and not arguments.data_dir.is_dir():
        raise Refusal(f"--data-dir {arguments.data_dir}: no such folder; make it, or leave the option out")
    files = find_files(arguments.data_dir)
    if files:
        training_images, training_labels, test_images, test_labels = load(files)
        source = f"the MNIST files in {arguments.data_dir}"
    else:
        with tempfile.TemporaryDirectory(prefix="mnist-") as folder:
            write_stand_in(Path(folder))
            training_images, training_labels, test_images, test_labels = load(find_files(Path(folder)))
        source = f"a stand-in set of drawn digits, as {arguments.data_dir} has no MNIST files (./download_mnist.sh)"
    count = len(training_images)
    print(f"training on {count} images, testing on {len(test_images)}: {source}", flush=True)
    if arguments.batch_size > count:
        raise Refusal(f"--batch-size {arguments.batch_size}: there are {count} training images; give a number up to that")

    output = arguments.output_dir
    random = np.random.RandomState(arguments.seed)
    parameters = new_parameters(random)
    try:
        output.mkdir(parents=True, exist_ok=True)
        # A model from an earlier run must not lie beside this run's metrics.
        (output / "model.npz").unlink(missing_ok=True)
        with open(output / "metrics.jsonl", "w", encoding="utf-8") as metrics:
            for epoch in range(1, arguments.n_epochs + 1):
                started = time.monotonic()
                order = random.permutation(count)
                loss = 0.0
                for start in range(0, count, arguments.batch_size):
                    batch = order[start : start + arguments.batch_size]
                    loss += train_batch(
                        parameters, training_images[batch], training_labels[batch], arguments.learning_rate
                    )
                test_loss, accuracy = evaluate(parameters, test_images, test_labels)
                if not (math.isfinite(loss) and math.isfinite(test_loss)):
                    raise Refusal(
                        f"--learning-rate {arguments.learning_rate}: the loss is no longer a number"
                        f" after epoch {epoch}; give a smaller one"
                    )
                line = {
                    "epoch": epoch,
                    "loss": round(loss / count, 6),
                    "test_loss": round(test_loss, 6),
                    "accuracy": round(accuracy, 6),
                }
                metrics.write(json.dumps(line) + "\n")
                metrics.flush()
                seconds = time.monotonic() - started
                print(
                    f"epoch {epoch}/{arguments.n_epochs}  loss {loss / count:.4f}  test loss {test_loss:.4f}"
                    f"  accuracy {accuracy * 100:.2f} %  {seconds:.1f} s",
                    flush=True,
                )
        write_model(output / "model.npz", parameters)
    except OSError as error:
        where = error.filename or output
        raise Refusal(f"{where}: {error.strerror}; make it writable, or give another --output-dir") from error
    print(f"wrote {output / 'metrics.jsonl'} and {output / 'model.npz'}")


# ---------------------------------------------------------------------------------------------------------------------


class OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"mnist.py: {message}; see --help\n")


def whole_number(low, high):
    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return value

    return parse


def positive_number(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def folder_name(text):
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def parse_arguments(words):
    parser = OneLineParser(
        prog="mnist.py",
        description="Trains a small neural network on MNIST.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--n-epochs", type=whole_number(1, 10_000), default=5, metavar="N", help="passes over the images")
    parser.add_argument("--learning-rate", type=positive_number, default=0.1, metavar="X", help="size of a step")
    parser.add_argument("--batch-size", type=whole_number(1, IMAGES_MAX), default=64, metavar="N", help="images a step")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="of all random numbers")
    parser.add_argument("--data-dir", type=folder_name, default=DATA_DIR, metavar="DIR", help="where the IDX files are")
    parser.add_argument("--output-dir", type=folder_name, default=OUTPUT_DIR, metavar="DIR", help="where results go")
    return parser.parse_args(words)


def main():
    arguments = parse_arguments(sys.argv[1:])
    try:
        # Overflow shows as a loss that is no number, which is reported in words.
        with np.errstate(all="ignore"):
            train(arguments)
    except Refusal as refusal:
        print(f"mnist.py: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mnist.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
