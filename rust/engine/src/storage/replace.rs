//! Files that are whole or absent: written under a temporary name beside their own, fsynced, renamed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::uncached::{Uncached, past_cache};

/// Names of files that are being written start with this.
pub(super) const TEMPORARY: &str = ".burnish-";

/// Makes the pieces the contents of a file. What a killed writer left in the folder is removed.
pub(super) fn replace(path: &Path, pieces: &[&[u8]], uncached: &mut Uncached) -> io::Result<()> {
    let path = &followed(path)?;
    put(path, pieces, uncached, None)?;
    synchronise(folder_of(path))?;
    remove_orphans(folder_of(path));
    Ok(())
}

/// The file that a link stands for; devices, pipes and sockets are refused, which a file would take the place of.
fn followed(path: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_symlink() && path.exists() => followed(&fs::canonicalize(path)?),
        Ok(about) if !(about.is_symlink() || about.is_file() || about.is_dir()) => {
            Err(io::Error::new(ErrorKind::InvalidInput, "it is there, and no file"))
        }
        _ => Ok(path.to_owned()),
    }
}

/// A file that got its contents and its name, of which only the contents are known to be on the disk.
#[derive(Debug)]
pub(super) struct Put {
    pub file: File,
    /// Whether it is not the spare one.
    pub new: bool,
}

/// Makes the pieces the contents of a file; `spare` is a temporary file beside it, whose place on the disk is taken if
/// that works.
pub(super) fn put(
    path: &Path,
    pieces: &[&[u8]],
    uncached: &mut Uncached,
    spare: Option<NamedTempFile>,
) -> io::Result<Put> {
    let folder = folder_of(path);
    let replaced = fs::metadata(path).ok().map(|about| about.permissions());
    let options = new_file(replaced.is_some());
    let mut finish = |file: NamedTempFile, new| finished(file, new, path, pieces, uncached, replaced.clone());
    if let Some(put) = spare.and_then(|spare| finish(spare, false).ok()) {
        return Ok(put);
    }
    match temporary(folder, past_cache(&mut options.clone())).and_then(|file| finish(file, true)) {
        Err(error) if refused(&error) => finish(temporary(folder, &options)?, true),
        other => other,
    }
}

/// Fills a temporary file and gives it its name.
fn finished(
    file: NamedTempFile,
    new: bool,
    path: &Path,
    pieces: &[&[u8]],
    uncached: &mut Uncached,
    replaced: Option<Permissions>,
) -> io::Result<Put> {
    uncached.write(&file, pieces)?;
    // Of a spare one, everything but contents and length is on the disk.
    let data_only = !new && replaced.is_none();
    if let Some(permissions) = replaced {
        file.as_file().set_permissions(permissions)?;
    }
    if data_only {
        file.as_file().sync_data()?
    } else {
        file.as_file().sync_all()?
    }
    Ok(Put { file: file.persist(path)?, new })
}

/// Not every file system writes past its cache, nor every one in blocks of this size.
fn refused(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Waits until what was renamed and removed in a folder is on the disk.
pub(super) fn synchronise(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// How a new file is opened: with the permissions of any new file, or, if it will get those of another, with the fewest.
fn new_file(replaces: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if replaces { 0o600 } else { 0o666 });
    #[cfg(not(unix))]
    let _ = replaces;
    options
}

/// A file that is locked as long as its writer lives, which tells it from an orphan.
fn temporary(folder: &Path, options: &OpenOptions) -> io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new().prefix(TEMPORARY).make_in(folder, |name| options.open(name))?;
        // A file system without locks has no orphans removed.
        let _ = file.as_file().lock();
        // Another writer may have taken it for an orphan before it was locked.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// Removes temporary files that nobody writes any more; the next write tries again where that fails.
pub(super) fn remove_orphans(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY)) {
        if File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place % 251) as u8).collect()
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_what_is_no_file_is_left_alone() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().expect("a folder");
        let [target, link, socket] = ["target", "link", "socket"].map(|name| folder.path().join(name));
        fs::write(&target, b"old").expect("written");
        std::os::unix::fs::symlink("target", &link).expect("a link");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        replace(&link, &[b"new"], &mut Uncached::default()).expect("written");
        assert_eq!(fs::read(&target).expect("read"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        let error = replace(&socket, &[b"new"], &mut Uncached::default()).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(fs::metadata(&socket).expect("there").file_type().is_socket());
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let orphan = folder.path().join(".burnish-killed");
        fs::write(&orphan, b"half").expect("written");
        let alive = temporary(folder.path(), &new_file(false)).expect("a file");
        replace(&folder.path().join("x"), &[b"x"], &mut Uncached::default()).expect("written");
        assert!(!orphan.exists() && alive.path().exists());
    }

    #[test]
    fn where_the_disk_refuses_to_write_past_the_cache_the_file_is_written_through_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let contents = contents(3 << 20);
        replace(&path, &[&contents], &mut Uncached::unaligned()).expect("written");
        assert!(fs::read(&path).expect("read") == contents);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_spare_that_is_gone_is_made_up_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let spare = temporary(folder.path(), past_cache(&mut new_file(false))).expect("a file");
        fs::remove_file(spare.path()).expect("removed");
        put(&path, &[b"new"], &mut Uncached::default(), Some(spare)).expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_kept_and_new_files_follow_the_mask() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let write = || replace(&path, &[&contents(5000)], &mut Uncached::default()).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("the file").permissions().mode() & 0o777;
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").expect("written");
        write();
        assert_eq!(mode(&path), mode(&plain));
        for wanted in [0o640, 0o444] {
            fs::set_permissions(&path, Permissions::from_mode(wanted)).expect("changed");
            write();
            assert_eq!(mode(&path), wanted);
        }
    }
}
