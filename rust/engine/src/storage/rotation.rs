//! Files of which new ones come and old ones go, as checkpoints do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use tempfile::NamedTempFile;

use super::replace::{Put, folder_of, put, remove_orphans, synchronise};
use super::uncached::Uncached;
use super::{Staged, StoredArray, failed};
use crate::Result;

/// Files written one after another into one folder, each under a name of its own. The next one takes the place on the
/// disk of one that was removed, which saves the file system most of its work.
#[derive(Debug, Default)]
pub struct Rotation {
    uncached: Uncached,
    spare: Option<NamedTempFile>,
    /// Whether the spare file's old name may come back after a power cut.
    named: bool,
    /// What new files look like.
    look: Option<Look>,
}

/// Permissions and owners.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Look([u32; 3]);

impl Rotation {
    /// Writes a file of arrays that were copied, and of more, as [`super::write`] does.
    ///
    /// `outdated` is a file to remove as [`Self::remove`] does, before this one is known to be on the disk: there must be
    /// others that serve as well.
    pub fn write(
        &mut self,
        path: &Path,
        staged: &mut Staged,
        more: &BTreeMap<String, StoredArray<'_>>,
        metadata: &BTreeMap<String, String>,
        outdated: Option<&Path>,
    ) -> Result<()> {
        let folder = folder_of(path);
        // The spare file's old name must be gone from the disk before its contents are.
        let spare = self.spare.take().filter(|_| !self.named || synchronise(folder).is_ok());
        let put = staged.file(more, metadata, |pieces| put(path, pieces, &mut self.uncached, spare))?;
        let Put { file, new } = put.map_err(|error| failed(path, &error))?;
        let removed = outdated.map_or(Ok(()), |outdated| self.remove(outdated));
        synchronise(folder).map_err(|error| failed(path, &error))?;
        self.named = false;
        if new {
            remove_orphans(folder);
            self.look = look(&file);
        }
        removed
    }

    /// Removes a file if it is there.
    pub fn remove(&mut self, path: &Path) -> Result<()> {
        if self.spare.is_none() && self.look.is_some() {
            self.spare = spare(path, self.look);
            self.named = true;
            if self.spare.is_some() {
                return Ok(());
            }
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, &error)),
            _ => Ok(()),
        }
    }
}

#[cfg(target_os = "linux")]
fn look(file: &File) -> Option<Look> {
    use std::os::unix::fs::MetadataExt;
    file.metadata().ok().map(|about| Look([about.mode(), about.uid(), about.gid()]))
}

/// Makes a temporary file of one that is to be removed, if it looks like a new one and nobody would notice.
#[cfg(target_os = "linux")]
fn spare(path: &Path, wanted: Option<Look>) -> Option<NamedTempFile> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    use super::replace::TEMPORARY;

    /// Place that is kept on the disk for nothing is no more than this; longer files gain little.
    const LONGEST: u64 = 1 << 26;

    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW);
    let file = options.open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > LONGEST || look(&file) != wanted || file.try_lock().is_err() {
        return None;
    }
    let mut file = Some(file);
    let renamed = tempfile::Builder::new().prefix(TEMPORARY).make_in(folder_of(path), |name| {
        fs::rename(path, name)?;
        file.take().ok_or_else(|| io::Error::from(ErrorKind::NotFound))
    });
    // Asked when nobody can open it by its name any more.
    renamed
        .ok()
        .filter(|spare| spare.as_file().metadata().is_ok_and(|about| about.nlink() == 1) && sole(spare.as_file()))
}

/// Whether nobody else has the file open or mapped: the system leases a file for writing to its only holder.
#[cfg(target_os = "linux")]
fn sole(file: &File) -> bool {
    use std::os::fd::AsRawFd;

    /// Of fcntl(2); `libc` leaves it out.
    const F_SETSIG: libc::c_int = 10;

    let descriptor = file.as_raw_fd();
    // SAFETY: the descriptor is open as long as `file` lives, and none of these commands takes a pointer.
    unsafe {
        // Who opens it while it is leased is told of by a signal, here one that ends no process.
        libc::fcntl(descriptor, F_SETSIG, libc::SIGURG);
        let leased = libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_WRLCK) == 0;
        leased && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

/// Other systems cannot tell who else reads a file.
#[cfg(not(target_os = "linux"))]
fn look(_: &File) -> Option<Look> {
    None
}

#[cfg(not(target_os = "linux"))]
fn spare(_: &Path, _: Option<Look>) -> Option<NamedTempFile> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    use super::*;
    use crate::storage::read;

    struct Folder {
        folder: tempfile::TempDir,
        rotation: Rotation,
    }

    impl Folder {
        /// With the files 0 and 1, of which 0 is the older one.
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let mut made = Self { folder, rotation: Rotation::default() };
            made.write(0, 5000, None);
            made.write(1, 5000, None);
            made
        }

        fn path(&self, number: u8) -> PathBuf {
            self.folder.path().join(number.to_string())
        }

        fn write(&mut self, number: u8, length: usize, outdated: Option<u8>) {
            let path = self.path(number);
            let outdated = outdated.map(|outdated| self.path(outdated));
            let mut staged = Staged::default();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
            staged.fill(&arrays(number, length), &pool, || ()).expect("filled");
            self.rotation
                .write(&path, &mut staged, &BTreeMap::new(), &BTreeMap::new(), outdated.as_deref())
                .expect("written");
        }

        /// Removes 0 and writes 2; whether 2 lies where 0 lay.
        fn recycles(&mut self, length: usize) -> bool {
            let before = fs::metadata(self.path(0)).expect("the file").ino();
            let path = self.path(0);
            self.rotation.remove(&path).expect("removed");
            assert!(!path.exists());
            self.write(2, length, None);
            assert!(read(&self.path(2)).expect("read").0 == arrays(2, length));
            assert!(read(&self.path(1)).expect("read").0 == arrays(1, 5000));
            fs::metadata(self.path(2)).expect("the file").ino() == before
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder.path()).expect("a folder");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    fn arrays(number: u8, length: usize) -> BTreeMap<String, StoredArray<'static>> {
        let array = StoredArray { dtype: "uint8".to_owned(), shape: vec![length], bytes: vec![number; length].into() };
        BTreeMap::from([("x".to_owned(), array)])
    }

    /// Whether the file system of temporary files gives leases to only holders at all.
    fn leases() -> bool {
        let folder = tempfile::tempdir().expect("a folder");
        sole(&File::create(folder.path().join("x")).expect("a file"))
    }

    #[test]
    fn a_removed_file_s_place_is_taken_by_longer_and_shorter_ones() {
        for length in [0, 1, 4000, 5000, 100_000] {
            let mut folder = Folder::new();
            assert_eq!(folder.recycles(length), leases());
            assert_eq!(folder.names(), ["1", "2"]);
        }
    }

    #[test]
    fn a_file_that_goes_with_the_next_makes_room_for_the_one_after() {
        let mut folder = Folder::new();
        let numbers = |folder: &Folder| {
            [1, 2, 3, 4].map(|number| fs::metadata(folder.path(number)).map_or(0, |about| about.ino()))
        };
        folder.write(2, 5000, Some(0));
        let first = numbers(&folder);
        folder.write(3, 5000, Some(1));
        folder.write(4, 5000, Some(2));
        let last = numbers(&folder);
        assert_eq!(last[3] == first[0], leases());
        assert_eq!(folder.names().iter().filter(|name| !name.starts_with('.')).count(), 2);
        for number in [3, 4] {
            assert!(read(&folder.path(number)).expect("read").0 == arrays(number, 5000));
        }
    }

    #[test]
    fn what_somebody_still_reads_is_left_to_them() {
        let mut folder = Folder::new();
        let reader = File::open(folder.path(0)).expect("the file");
        let before = io::read_to_string(&File::open(folder.path(0)).expect("the file")).map_err(drop);
        assert!(!folder.recycles(5000));
        assert_eq!(io::read_to_string(reader).map_err(drop), before);
    }

    #[test]
    fn a_hard_link_keeps_its_contents() {
        let mut folder = Folder::new();
        let link = folder.path(9);
        fs::hard_link(folder.path(0), &link).expect("linked");
        assert!(!folder.recycles(5000));
        assert!(read(&link).expect("read").0 == arrays(0, 5000));
    }

    #[test]
    fn a_symbolic_link_s_target_stays() {
        let mut folder = Folder::new();
        let elsewhere = folder.path(9);
        fs::rename(folder.path(0), &elsewhere).expect("moved");
        std::os::unix::fs::symlink(&elsewhere, folder.path(0)).expect("linked");
        assert!(!folder.recycles(5000));
        assert!(read(&elsewhere).expect("read").0 == arrays(0, 5000));
    }

    #[test]
    fn permissions_that_somebody_changed_are_not_passed_on() {
        let mut folder = Folder::new();
        let mode = |path: PathBuf| fs::metadata(path).expect("the file").permissions().mode();
        fs::set_permissions(folder.path(0), fs::Permissions::from_mode(0o600)).expect("changed");
        folder.recycles(5000);
        assert_eq!(mode(folder.path(2)), mode(folder.path(1)));
    }

    #[test]
    fn the_spare_file_goes_with_the_rotation_and_an_absent_one_may_be_removed() {
        let mut folder = Folder::new();
        for number in [0, 7, 1] {
            let path = folder.path(number);
            folder.rotation.remove(&path).expect("removed");
        }
        assert_eq!(folder.names().len(), usize::from(leases()));
        folder.rotation = Rotation::default();
        assert!(folder.names().is_empty());
    }
}
