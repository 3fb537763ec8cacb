"""Layers that each break one promise of layers/base.py, and the conformance test that must say so.

Not collected by itself: test_conformance.py runs the named tests and expects every one to fail.
"""

import errno
import os
import stat
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from overlayvfs.abi import Dirent, Stat, oserror
from overlayvfs.layers.base import INDEX, WORK, Capabilities, Handle
from overlayvfs.layers.memory import MemoryLayer
from overlayvfs.testing.conformance import SnapshotConformance


class Broken(SnapshotConformance):
    """A suite over one broken layer; `found_by` names the test that must fail."""

    Layer: type[MemoryLayer]
    found_by: str

    def make_upper(self, where: Path) -> MemoryLayer:
        return self.Layer()


class TestFollowsSymlinks(Broken):
    found_by = "test_no_path_leads_through_a_symlink"

    class Layer(MemoryLayer):
        def lstat(self, path: str) -> Stat:
            head, _, name = path.rpartition("/")
            if head and stat.S_ISLNK(super().lstat(head).st_mode):
                return super().lstat(f"/{self.readlink(head)}/{name}")
            return super().lstat(path)


class TestListsDots(Broken):
    found_by = "test_listdir_tells_names_kinds_and_numbers_as_lstat_does"

    class Layer(MemoryLayer):
        def listdir(self, path: str) -> list[Dirent]:
            return [Dirent(".", 1, stat.S_IFDIR), *super().listdir(path)]


class TestNamesAreStale(Broken):
    found_by = "test_names_are_those_listed_or_not_told"

    class Layer(MemoryLayer):
        def names(self, path: str) -> Collection[str]:
            return [*super().names(path), "no such name"]


class TestMissingIsNotADirectory(Broken):
    found_by = "test_missing_name_is_enoent"

    class Layer(MemoryLayer):
        def readlink(self, path: str) -> str:
            try:
                return super().readlink(path)
            except FileNotFoundError:
                raise oserror(errno.ENOTDIR, path) from None


class TestAppliesTheUmask(Broken):
    found_by = "test_modes_asked_for_are_modes_made_whatever_the_umask"

    class Layer(MemoryLayer):
        def mkdir(self, path: str, mode: int, uid: int, gid: int) -> None:
            umask = os.umask(0)
            os.umask(umask)
            super().mkdir(path, mode & ~umask, uid, gid)


class TestForgetsTheOwner(Broken):
    found_by = "test_owners_asked_for_are_owners_made"

    class Layer(MemoryLayer):
        def symlink(self, target: str, path: str, uid: int, gid: int) -> None:
            super().symlink(target, path, 0, 0)


class TestReplacesWhatIsThere(Broken):
    found_by = "test_making_a_taken_name_is_eexist"

    class Layer(MemoryLayer):
        def mknod(self, path: str, mode: int, rdev: int, uid: int, gid: int) -> None:
            try:
                self.unlink(path)
            except OSError:
                pass
            super().mknod(path, mode, rdev, uid, gid)


class TestHandleFollowsTheName(Broken):
    found_by = "test_handle_survives_replacement"

    class Layer(MemoryLayer):
        def rename(self, src: str, dst: str, flags: int = 0) -> None:
            if flags or stat.S_ISDIR(self.lstat(src).st_mode):
                super().rename(src, dst, flags)
                return
            # As a backend does that copies over the target and removes the source.
            with_data, target = self.open(src), self.open(dst, writable=True)
            target.truncate(0)
            target.pwrite(with_data.pread(1 << 20, 0), 0)
            self.unlink(src)


class TestUnlinkEmptiesOpenFiles(Broken):
    found_by = "test_handle_survives_unlink"

    class Layer(MemoryLayer):
        def unlink(self, path: str) -> None:
            if stat.S_ISREG(self.lstat(path).st_mode):
                self.open(path, writable=True).truncate(0)
            super().unlink(path)


class TestLosesTheWhiteoutOfARename(Broken):
    found_by = "test_rename_leaves_a_whiteout_if_asked"

    class Layer(MemoryLayer):
        def rename(self, src: str, dst: str, flags: int = 0) -> None:
            super().rename(src, dst, flags & ~4)


class TestExchangeReplaces(Broken):
    found_by = "test_exchange_swaps_two_objects_of_any_kind"

    class Layer(MemoryLayer):
        def rename(self, src: str, dst: str, flags: int = 0) -> None:
            super().rename(src, dst, flags & ~2)


class TestRenameStampsNoParent(Broken):
    found_by = "test_changing_names_stamps_the_parent"

    class Layer(MemoryLayer):
        def rename(self, src: str, dst: str, flags: int = 0) -> None:
            parents = {path.rpartition("/")[0] for path in (src, dst)}
            times = {path: self.lstat(path) for path in parents}
            super().rename(src, dst, flags)
            for path, st in times.items():
                self.utime(path, st.st_atime_ns, st.st_mtime_ns)


class TestChownClearsSetId(Broken):
    found_by = "test_chown_clears_no_set_id_bits"

    class Layer(MemoryLayer):
        def chown(self, path: str, uid: int, gid: int) -> None:
            super().chown(path, uid, gid)
            super().chmod(path, self.lstat(path).st_mode & 0o1777)


class TestUserAttributesOnSymlinks(Broken):
    found_by = "test_user_attributes_are_for_files_and_directories_only"

    class Layer(MemoryLayer):
        def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
            if not stat.S_ISLNK(self.lstat(path).st_mode):
                super().setxattr(path, name, value, flags)


class TestWrongErrnoForAttributeFlags(Broken):
    found_by = "test_attribute_flags_and_absences"

    class Layer(MemoryLayer):
        def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None:
            super().setxattr(path, name, value)


class TestRemovesWhiteoutsWithTheirDirectory(Broken):
    found_by = "test_rmdir_of_a_directory_with_names_is_enotempty_whiteouts_included"

    class Layer(MemoryLayer):
        def rmdir(self, path: str) -> None:
            for entry in self.listdir(path):
                if entry.d_type == stat.S_IFCHR:
                    self.unlink(f"{path}/{entry.d_name}")
            super().rmdir(path)


class TestFailureLeavesHalf(Broken):
    found_by = "test_rename_refuses_what_rename_2_refuses"

    class Layer(MemoryLayer):
        def rename(self, src: str, dst: str, flags: int = 0) -> None:
            try:
                super().rename(src, dst, flags)
            except OSError:
                if stat.S_ISREG(self.lstat(src).st_mode):
                    self.unlink(src)
                raise


class TestListsTheWorkDirectory(Broken):
    found_by = "test_prepare_makes_a_work_directory_no_listing_shows"

    class Layer(MemoryLayer):
        def listdir(self, path: str) -> list[Dirent]:
            return [*super().listdir(path), *([] if path else [Dirent("work", 7, stat.S_IFDIR)])]


class TestKeepsWhatACrashLeft(Broken):
    found_by = "test_prepare_empties_work_of_what_a_crash_left"

    class Layer(MemoryLayer):
        def prepare(self, *, index: bool) -> None:
            try:
                self.lstat(WORK)
            except FileNotFoundError:
                super().prepare(index=index)


class TestEmptiesTheIndex(Broken):
    found_by = "test_prepare_leaves_the_index_alone"

    class Layer(MemoryLayer):
        def prepare(self, *, index: bool) -> None:
            super().prepare(index=index)
            for entry in self.listdir(INDEX) if index else ():
                self.unlink(f"{INDEX}/{entry.d_name}")


class TestClonesTooMuch(Broken):
    found_by = "test_clone_gives_the_first_bytes_or_nothing"

    class Layer(MemoryLayer):
        def clone(self, src: Handle, dst: Handle, size: int) -> bool:
            dst.pwrite(src.pread(src.stat().st_size, 0), 0)
            return True


class TestFindsTheDead(Broken):
    found_by = "test_a_removed_object_s_handle_is_found_no_more"

    class Layer(MemoryLayer):
        def unlink(self, path: str) -> None:
            self.dead = self.lstat(path)
            super().unlink(path)

        def find_handle(self, value: bytes, hint: str | None = None) -> Stat | None:
            return super().find_handle(value, hint) or getattr(self, "dead", None)


class TestSnapshotIsAView(Broken):
    found_by = "test_no_change_of_one_shows_in_the_other"

    class Layer(MemoryLayer):
        def snapshot(self) -> MemoryLayer:
            return self.subtree("")


class TestClaimsNoLinksAndMakesThem(Broken):
    found_by = "test_link_gives_one_object_two_names"

    class Layer(MemoryLayer):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, hard_links=False)


class TestRefusesWithoutNamingItself(Broken):
    found_by = "test_chmod_sets_twelve_bits_or_is_refused"

    class Layer(MemoryLayer):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, modes=False)

        def chmod(self, path: str, mode: int) -> None:
            raise oserror(errno.EPERM, path)


class TestStorageHoldsAnotherTree(Broken):
    found_by = "test_rename_replaces_a_file"

    Layer = MemoryLayer

    def outside(self, layer: object) -> dict[str, bytes | None]:
        return {"/g": b"one", "/left-behind": b""}
