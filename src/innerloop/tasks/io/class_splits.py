"""Published lists of classes: text files in the package, one class name per line, with a checksum for each file."""

from importlib import resources

from innerloop.errors import InnerloopError
from innerloop.io.digests import sha256
from innerloop.tasks.class_arrays import ClassArrays, Splits

SHA256 = {
    "cifar_fs_test.txt": "3720c9d858fa547dbf71ca80ede1f94a803279cfdedd3f7a9b9d3beb4ce5c020",
    "cifar_fs_train.txt": "0154ee441a989ce0a365a3d1d42f3459747ab9ca6220542f2e6523c1ebd78271",
    "cifar_fs_validation.txt": "237aebb25316eb966586e35e5c340539277f9a194d6dc3b96be0cac609f42ecb",
    "fc100_test.txt": "d357da9d30cc6d06972b0cbd501318ff515fc276a3b1e1f69255258a5fc5652b",
    "fc100_train.txt": "007d0bdb2d1d339e1864423361b0c25508e30e58c3a44186e578e47a168e9bdd",
    "fc100_validation.txt": "77ec98102601dd7bbbf4c9a983e3cf17b42b3ac8e2aed6df53af7b0db4957a9f",
    "glyphs_train.txt": "fb0b02e69587feae099095f03f21cb9db23205c14a3d52532ac2a3ef4bb767f9",
    "glyphs_validation.txt": "be8a6a0b9bf3452b03364de9868820a67d95521c59265bcffba6dcdacd9104a7",
    "glyphs_test.txt": "975ba84872824fe498bc50d760fa24f9cfdfc2f68a731010bc9d75e4e29f9a24",
    "omniglot_evaluation_test.txt": "d6766f41d9c8fea1d2aab9ec6fb357b2f0c84cc80aaf6c4ab5f12016c01f6fa3",
    "omniglot_maml_test.txt": "6c51976d7c16ca9a8b2b3215847a529fb961a19df7d15f5706cfbc345b244748",
    "omniglot_maml_train.txt": "5db7f21e25125d35ddee42bb747ab423264e20b224efb534ee904c31112461e2",
    "omniglot_maml_validation.txt": "4347444f1e5d3c11a5ed0943080a2d51427fbb51c28f3f997bf2cca644b56575",
}
SPLITS = Splits._fields


def names(protocol: str, split: str) -> tuple[str, ...]:
    """The class names of a split in a published protocol.

    Args:
        protocol: the protocol, such as `omniglot_maml`, `cifar_fs` or `fc100`.
        split: `train`, `validation` or `test`.

    Raises:
        InnerloopError: if the file does not match its checksum.
    """
    file = f"{protocol}_{split}.txt"
    path = resources.files("innerloop.tasks.datasets") / "splits" / file
    content = path.read_bytes().replace(b"\r\n", b"\n")
    if sha256([content]).hex() != SHA256[file]:
        raise InnerloopError(file, "the class split does not match its checksum", hint="reinstall innerloop")
    return tuple(content.decode().split())


def apply(data: ClassArrays, protocol: str) -> Splits:
    """Split the classes of a data set as in a published protocol."""
    return Splits(*(data.gather(names(protocol, split)) for split in SPLITS))
