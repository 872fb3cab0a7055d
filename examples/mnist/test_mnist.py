"""Tests of mnist.py. They need NumPy and write only to temporary folders: python3 -m unittest"""

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

import mnist

HERE = Path(__file__).resolve().parent


class Sandbox(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.data = self.folder / "data"
        self.data.mkdir()

    def run_program(self, *arguments):
        return subprocess.run(
            [sys.executable, "-B", HERE / "mnist.py", *arguments], cwd=self.folder, capture_output=True, text=True
        )

    def refused(self, *arguments):
        """Runs the program, which must exit with 2 and one line on stderr; returns that line."""
        done = self.run_program(*arguments)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("mnist.py: "), done.stderr)
        return done.stderr


class StandIn(Sandbox):
    def test_has_the_same_bytes_everywhere(self):
        mnist.write_stand_in(self.data, training=300, test=100)
        digest = hashlib.sha256()
        for name in sorted(mnist.FILES.values()):
            digest.update((self.data / name).read_bytes())
        self.assertEqual(digest.hexdigest(), "5830b63ce03a7ef251d809a26b13751a1d23ad1579ee659e6f4a692950cd4ca2")

    def test_reads_back_as_digits(self):
        mnist.write_stand_in(self.data, training=300, test=100)
        images, labels, test_images, test_labels = mnist.load(mnist.find_files(self.data))
        self.assertEqual((images.shape, test_images.shape), ((300, 784), (100, 784)))
        self.assertEqual(set(labels) | set(test_labels), set(range(10)))


class Training(Sandbox):
    def setUp(self):
        super().setUp()
        mnist.write_stand_in(self.data, training=2000, test=500)

    def outputs(self, name, *arguments):
        done = self.run_program("--n-epochs", "2", "--output-dir", name, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [(self.folder / name / file).read_bytes() for file in ("metrics.jsonl", "model.npz")]

    def test_same_seed_same_bytes(self):
        first = self.outputs("a", "--seed", "3")
        self.assertEqual(first, self.outputs("b", "--seed", "3"))
        other = self.outputs("c", "--seed", "4")
        self.assertNotEqual(first[0], other[0])
        self.assertNotEqual(first[1], other[1])

    def test_learns_and_keeps_the_model(self):
        metrics, _ = self.outputs("out")
        lines = [json.loads(line) for line in metrics.splitlines()]
        self.assertEqual([line["epoch"] for line in lines], [1, 2])
        self.assertLess(lines[1]["loss"], lines[0]["loss"])
        self.assertGreater(lines[1]["accuracy"], 0.5)
        _, _, images, labels = mnist.load(mnist.find_files(self.data))
        with np.load(self.folder / "out" / "model.npz") as model:
            loss, accuracy = mnist.evaluate(model, images, labels)
        self.assertEqual((round(loss, 6), round(accuracy, 6)), (lines[1]["test_loss"], lines[1]["accuracy"]))

    def test_gzipped_files_train_alike(self):
        plain = self.outputs("plain")
        for path in list(self.data.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        self.assertEqual(plain, self.outputs("gzipped"))


class Arguments(Sandbox):
    def test_bad_values(self):
        for option, value in [
            ("--n-epochs", "0"),
            ("--n-epochs", "3.5"),
            ("--learning-rate", "-1"),
            ("--learning-rate", "nan"),
            ("--learning-rate", "inf"),
            ("--learning-rate", "fast"),
            ("--batch-size", "0"),
            ("--batch-size", "999999"),
            ("--seed", "-1"),
            ("--seed", str(2**32)),
            ("--data-dir", ""),
        ]:
            with self.subTest(option=option, value=value):
                self.assertIn(option, self.refused(option, value))

    def test_data_folder_that_does_not_exist(self):
        self.assertIn("--data-dir elsewhere", self.refused("--data-dir", "elsewhere"))

    def test_unknown_option(self):
        self.assertIn("--epochs", self.refused("--epochs", "3"))

    def test_divergence(self):
        mnist.write_stand_in(self.data, training=300, test=100)
        self.assertIn("--learning-rate", self.refused("--learning-rate", "1e30"))

    def test_output_that_cannot_be_made(self):
        (self.folder / "taken").write_text("a file")
        mnist.write_stand_in(self.data, training=300, test=100)
        self.assertIn("--output-dir", self.refused("--output-dir", "taken"))


class BrokenData(Sandbox):
    def setUp(self):
        super().setUp()
        mnist.write_stand_in(self.data, training=300, test=100)

    def check(self, name, content, expected):
        path = self.data / name
        kept = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        with self.subTest(expected=expected):
            line = self.refused()
            self.assertIn(str(Path("data") / name), line)
            self.assertIn(expected, line)
        if kept is None:
            path.unlink()
        else:
            path.write_bytes(kept)

    def test_each_kind_of_damage(self):
        images = (self.data / "train-images-idx3-ubyte").read_bytes()
        labels = (self.data / "train-labels-idx1-ubyte").read_bytes()
        name = "train-images-idx3-ubyte"
        self.check(name, b"", "not an IDX file")
        self.check(name, b"<html>no such page</html>", "not an IDX file")
        self.check(name, images[:10], "ends within its header")
        self.check(name, images[:-1], "ends after 235199 of 235200")
        self.check(name, images + b"x", "goes on after")
        self.check(name, images[:2] + b"\x0d" + images[3:], "element type 0x0d")
        self.check(name, labels, "1 dimensions where 3 belong")
        self.check(name, images[:4] + b"\xff\xff\xff\xff" + images[8:], "4294967295 x 28 x 28")
        self.check(name, images[:8] + b"\0\0\0\x1d" + images[12:], "300 x 29 x 28")
        self.check(name, images[:4] + bytes(4) + images[8:16], "holds no images")
        name = "train-labels-idx1-ubyte"
        self.check(name, labels[:7] + bytes([labels[7] - 1]) + labels[8:-1], "299 labels for 300 images")
        self.check(name, labels[:-1] + b"\x0a", "label 10 is no digit")

    def test_broken_gzip(self):
        path = self.data / "train-images-idx3-ubyte"
        packed = gzip.compress(path.read_bytes())
        path.unlink()
        for content in (b"", b"no gzip at all", packed[:-20], packed[:2000] + bytes(500) + packed[2500:]):
            self.check("train-images-idx3-ubyte.gz", content, "")

    def test_incomplete_set(self):
        (self.data / "t10k-labels-idx1-ubyte").unlink()
        self.assertIn("t10k-labels-idx1-ubyte missing", self.refused())


if __name__ == "__main__":
    unittest.main()
