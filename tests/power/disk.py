"""A disk that loses its power: the log of record.c, replayed into what is on disk for sure and what
the kernel may or may not have written yet.

The model, harsher than any file system that is in use:
- A file is 512-byte sectors. A sector holds, after a power cut, what was synced last or what any later
  write made of it, each sector by itself: writes are lost, torn and reordered in any way. fsync and
  fdatasync make all of a file's writes durable; a write through O_DSYNC makes its own sectors so.
- A file's size is durable with its sync; before, it is anything that holds the sectors that are kept.
- A name is durable with the fsync of its directory; before, each creation, rename and removal is kept or
  dropped by itself.

What means nothing after a power cut has any content: the file "lock", and what is mapped for shared
writing, which must be LMDB's lock.mdb.
"""

import collections
import random
import shutil
import struct
from pathlib import Path

SECTOR = 512
SCRATCH = ("lock", "lock.mdb")
HEAD = struct.Struct("=IIQQQQQ")
(START, WRITE, TRUNCATE, SYNC, CREATE, MKDIR, RENAME, UNLINK, SEND, RECEIVE, ODD, SHARED) = range(1, 13)

Record = collections.namedtuple("Record", "kind name data object directory at through")
# One choice for everything that is not durable. sectors: {inode: {sector: version}}, sizes: {inode:
# size}, names: {directory inode: [operation, ...]}.
Choice = collections.namedtuple("Choice", "name sectors sizes names")


class Odd(Exception):
    """The broker did something that this model does not know."""


def read_log(path):
    """The records; a kill may have cut the last one of a process off, then nothing follows it."""
    data = Path(path).read_bytes()
    at, records = 0, []
    while at + HEAD.size <= len(data):
        kind, name_len, data_len, obj, directory, pos, through = HEAD.unpack_from(data, at)
        body = at + HEAD.size
        end = body + name_len + data_len
        if end > len(data):
            break
        name = data[body:body + name_len].decode()
        records.append(Record(kind, name, data[body + name_len:end], obj, directory, pos, through))
        at = end
    return records


class File:
    def __init__(self):
        self.durable = bytearray()
        self.pending = {}  # sector -> [(number of the write, content), ...]
        self.sizes = []  # sizes that came with the pending writes
        self.size = 0  # as a reader sees it
        self.scratch = False  # its content means nothing

    def sector(self, n):
        """As a reader sees it."""
        if n in self.pending:
            return self.pending[n][-1][1]
        return bytes(self.durable[n * SECTOR:(n + 1) * SECTOR]).ljust(SECTOR, b"\0")

    def write(self, number, at, data):
        first, last = at // SECTOR, (at + len(data) - 1) // SECTOR
        for n in range(first, last + 1):
            start, end = max(at, n * SECTOR), min(at + len(data), (n + 1) * SECTOR)
            content = data[start - at:end - at]
            if len(content) < SECTOR:
                whole = bytearray(self.sector(n))
                whole[start - n * SECTOR:end - n * SECTOR] = content
                content = bytes(whole)
            self.pending.setdefault(n, []).append((number, content))
        if at + len(data) > self.size:
            self.size = at + len(data)
            self.sizes.append(self.size)
        return range(first, last + 1)

    def truncate(self, size):
        if size < self.size and not self.scratch:
            raise Odd("a file was made shorter")
        self.size = size
        self.sizes.append(size)

    def settle(self, sectors=None):
        """These sectors (or all) are durable now. Returns them with their content."""
        chosen = sorted(self.pending if sectors is None else sectors)
        end = self.size if sectors is None else min(self.size, (max(chosen) + 1) * SECTOR)
        if end > len(self.durable):
            self.durable.extend(bytes(end - len(self.durable)))
        settled = {}
        for n in chosen:
            content = self.pending.pop(n)[-1][1]
            settled[n] = content
            piece = content[:max(0, len(self.durable) - n * SECTOR)]
            self.durable[n * SECTOR:n * SECTOR + len(piece)] = piece
        if sectors is None:
            self.sizes = []
        return settled


class Directory:
    def __init__(self):
        self.durable = {}  # name -> inode
        self.pending = []  # operations: (name that goes or None, name that comes or None, inode)


def apply_names(entries, operations):
    """The entries after some of the operations, whichever they are."""
    entries = dict(entries)
    for gone, come, inode in operations:
        if gone is not None and (inode == 0 or entries.get(gone) == inode):
            entries.pop(gone, None)
        if come is not None:
            entries[come] = inode
    return entries


class Disk:
    """What is on it, record by record."""

    def __init__(self, root_inode):
        self.root = root_inode
        self.inodes = {root_inode: Directory()}
        self.number = 0  # of the record
        self.settled = []  # (inode, sectors) since the image on the side was brought up to date

    def directory(self, inode):
        if inode not in self.inodes:
            raise Odd(f"a directory that was not seen being made (inode {inode})")
        return self.inodes[inode]

    def apply(self, r):
        self.number += 1
        if r.kind == WRITE:
            touched = self.inodes[r.object].write(self.number, r.at, r.data)
            if r.through:
                self.settled.append((r.object, self.inodes[r.object].settle(touched)))
        elif r.kind == TRUNCATE:
            self.inodes[r.object].truncate(r.at)
        elif r.kind == SYNC:
            self.sync(r.object)
        elif r.kind == CREATE:
            self.inodes[r.object] = File()
            self.inodes[r.object].scratch = r.name in SCRATCH
            self.directory(r.directory).pending.append((None, r.name, r.object))
        elif r.kind == MKDIR:
            self.inodes[r.object] = Directory()
            self.directory(r.directory).pending.append((None, r.name, r.object))
        elif r.kind == RENAME:
            if r.directory != r.at:
                raise Odd("a rename between two directories")
            self.directory(r.directory).pending.append((r.name, r.data.decode(), r.object))
        elif r.kind == UNLINK:
            self.directory(r.directory).pending.append((r.name, None, 0))
        elif r.kind == SHARED:
            if not self.inodes[r.object].scratch:
                raise Odd("a file was mapped for shared writing")
        elif r.kind == ODD:
            raise Odd(r.name)

    def sync(self, inode):
        found = self.inodes.get(inode)
        if isinstance(found, Directory):
            found.durable = apply_names(found.durable, found.pending)
            found.pending = []
        elif found is not None:
            self.settled.append((inode, found.settle()))

    # -- what is not durable --

    def pending_files(self):
        """Files with something that may be lost, but for those whose content means nothing."""
        return {i: f for i, f in self.inodes.items()
                if isinstance(f, File) and (f.pending or f.sizes) and not f.scratch}

    def pending_names(self):
        return {i: d for i, d in self.inodes.items() if isinstance(d, Directory) and d.pending}

    def unsettled(self):
        """Whether anything would be lost now."""
        return bool(self.pending_names()) or bool(self.pending_files())


# ---- choices ----

def choice_of(name, disk, keep, names, grow):
    """keep(inode, sector, versions) -> the version to keep (an index) or None; names(ops) -> ops."""
    sectors, sizes = {}, {}
    for inode, file in disk.pending_files().items():
        kept = {}
        for n, versions in file.pending.items():
            version = keep(inode, n, versions)
            if version is not None:
                kept[n] = version
        size = len(file.durable)
        if kept:
            size = max(size, min(file.size, (max(kept) + 1) * SECTOR))
        if grow(inode) and file.sizes:
            size = max(size, file.size)
        sectors[inode], sizes[inode] = kept, size
    chosen = {i: names(d.pending) for i, d in disk.pending_names().items()}
    return Choice(name, sectors, sizes, chosen)


def nothing(disk):
    return choice_of("none", disk, lambda i, n, v: None, lambda ops: [], lambda i: False)


def everything(disk):
    return choice_of("all", disk, lambda i, n, v: len(v) - 1, list, lambda i: True)


def random_choice(disk, seed):
    """One way in which the power goes; the same seed gives the same one."""
    rng = random.Random(seed)
    kind = rng.choice(("tail", "torn", "sectors", "sectors", "writes", "one lost", "one kept",
                       "versions"))
    pending = [(i, n) for i, f in disk.pending_files().items() for n in f.pending]
    numbers = sorted({v[0] for f in disk.pending_files().values()
                      for versions in f.pending.values() for v in versions})
    cut = rng.choice(numbers) if numbers else 0
    some = {number for number in numbers if rng.random() < 0.5}
    one = rng.choice(pending) if pending else None
    share = rng.choice((0.1, 0.5, 0.9))
    torn = [(i, n) for i, f in disk.pending_files().items() for n, versions in f.pending.items()
            if any(v[0] == cut for v in versions)]
    torn_at = torn[rng.randrange(len(torn))] if torn else None

    def below(versions, number):
        kept = [k for k, v in enumerate(versions) if v[0] <= number]
        return kept[-1] if kept else None

    def keep(inode, n, versions):
        if kind == "tail":  # the writes in their order, up to one
            return below(versions, cut)
        if kind == "torn":  # the same, and the last one is torn at a sector
            return below(versions, cut - (torn_at is not None and (inode, n) >= torn_at))
        if kind == "writes":  # whole writes, out of order
            kept = [k for k, v in enumerate(versions) if v[0] in some]
            return kept[-1] if kept else None
        if kind == "one lost":
            return None if (inode, n) == one else len(versions) - 1
        if kind == "one kept":
            return len(versions) - 1 if (inode, n) == one else None
        if kind == "versions":  # any state that the sector ever had
            k = rng.randrange(-1, len(versions))
            return None if k < 0 else k
        return len(versions) - 1 if rng.random() < share else None

    return choice_of(kind, disk, keep, lambda ops: [op for op in ops if rng.random() < 0.5],
                     lambda i: rng.random() < 0.5)


def key_of(choice):
    """Equal for choices that give the same disk."""
    return (tuple(sorted((i, tuple(sorted(s.items()))) for i, s in choice.sectors.items())),
            tuple(sorted(choice.sizes.items())),
            tuple(sorted((i, tuple(ops)) for i, ops in choice.names.items())))


MISSES = 30  # random choices in a row that were there already: there are no more


def choices(disk, count, seed):
    """At most `count` different ones, nothing kept and everything kept first. The same seed gives the
    same list, however long it is asked to be."""
    found = [nothing(disk), everything(disk)]
    seen = {key_of(c) for c in found}
    if len(seen) == 1:
        return found[:1]
    attempt = misses = 0
    while len(found) < count and misses < MISSES:
        c = random_choice(disk, f"{seed}.{attempt}")
        attempt += 1
        misses += 1
        if key_of(c) not in seen:
            misses = 0
            seen.add(key_of(c))
            found.append(c)
    return found[:count]


def capacity(disk, most):
    """How many different choices there are, at most `most`."""
    parts = sum(len(f.pending) + bool(f.sizes) for f in disk.pending_files().values())
    parts += sum(len(d.pending) for d in disk.pending_names().values())
    return min(most, 1 << min(parts, 30))


# ---- as files ----

def tree_of(disk, choice):
    """{path: inode} below the root, after the choice; directories have a path that ends in "/"."""
    paths = {}

    def walk(inode, prefix):
        d = disk.inodes[inode]
        for name, child in apply_names(d.durable, choice.names.get(inode, [])).items():
            if isinstance(disk.inodes[child], Directory):
                paths[prefix + name + "/"] = child
                walk(child, prefix + name + "/")
            else:
                paths[prefix + name] = child

    walk(disk.root, "")
    return paths


def content_of(disk, choice, inode):
    file = disk.inodes[inode]
    if file.scratch:
        return random.Random(f"{choice.name}{inode}").randbytes(8192)
    size = choice.sizes.get(inode, len(file.durable))
    data = bytearray(file.durable[:size])
    data.extend(bytes(size - len(data)))
    for n, version in choice.sectors.get(inode, {}).items():
        piece = file.pending[n][version][1][:max(0, size - n * SECTOR)]
        data[n * SECTOR:n * SECTOR + len(piece)] = piece
    return bytes(data)


class Image:
    """A directory that holds the durable disk, is changed into a state and back again, so that a
    state costs as much as what it has of its own."""

    def __init__(self, disk, place):
        self.disk = disk
        self.place = Path(place)
        self.paths = None  # what is there; None: build it anew
        self.generation = 0

    def enter(self, choice):
        """Makes the state. Returns the directory that stands for the root."""
        paths = tree_of(self.disk, choice)
        plain = any(p.endswith("store/data.mdb") for p in paths) and \
            not any(".new-store" in p for p in paths)
        if self.paths != paths:
            self._build(paths)
        self._catch_up()
        self._patch(choice, paths)
        # What reopening changes beside the locks would be left behind for the next state.
        self.paths = paths if plain else None
        return self.directory

    def leave(self, choice):
        if self.paths is not None:
            self._patch_back(choice)

    def _build(self, paths):
        if self.generation > 0:
            shutil.rmtree(self.directory)
        self.generation += 1
        self.directory = self.place / f"image-{self.generation}"
        self.directory.mkdir(parents=True)
        self.files = {}
        for path, inode in sorted(paths.items()):
            if path.endswith("/"):
                (self.directory / path).mkdir()
            else:
                file = self.disk.inodes[inode]
                data = content_of(self.disk, Choice("", {}, {}, {}), inode)
                (self.directory / path).write_bytes(data)
                if not file.scratch:
                    self.files[inode] = self.directory / path
        self.disk.settled = []

    def _catch_up(self):
        for inode, sectors in self.disk.settled:
            if inode in self.files:
                self._write(inode, sectors, len(self.disk.inodes[inode].durable))
        self.disk.settled = []

    def _write(self, inode, sectors, size):
        with open(self.files[inode], "r+b", buffering=0) as f:
            if f.seek(0, 2) != size:
                f.truncate(size)
            for n, content in sectors.items():
                piece = content[:max(0, size - n * SECTOR)]
                if piece:
                    f.seek(n * SECTOR)
                    f.write(piece)

    def _patch(self, choice, paths):
        for inode, kept in choice.sectors.items():
            if inode in self.files:
                file = self.disk.inodes[inode]
                self._write(inode, {n: file.pending[n][v][1] for n, v in kept.items()},
                            choice.sizes[inode])

    def _patch_back(self, choice):
        for inode, kept in choice.sectors.items():
            if inode in self.files:
                durable = self.disk.inodes[inode].durable
                self._write(inode, {n: bytes(durable[n * SECTOR:(n + 1) * SECTOR]) for n in kept},
                            len(durable))
