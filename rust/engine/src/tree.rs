//! No source file lies about that the compiler never sees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
}

/// The name in `mod name;`, whatever its visibility.
fn declared(line: &str) -> Option<&str> {
    let (before, name) = line.trim().strip_suffix(';')?.rsplit_once("mod ")?;
    let visibility = before.trim();
    (visibility.is_empty() || visibility.starts_with("pub")).then_some(name)
}

/// Follows `mod` declarations from a file whose modules lie in `folder`.
fn follow(file: &Path, folder: &Path, found: &mut BTreeSet<PathBuf>) {
    found.insert(file.to_owned());
    let text = fs::read_to_string(file).expect("a source file");
    for name in text.lines().filter_map(declared) {
        let inner = folder.join(name);
        let candidates = [folder.join(format!("{name}.rs")), inner.join("mod.rs")];
        if let Some(module) = candidates.iter().find(|path| path.exists()) {
            follow(module, &inner, found);
        }
    }
}

#[test]
fn every_source_file_is_named_by_a_mod() {
    // Asked for while running: clones that share a build cache may run a binary that another compiled.
    let engine = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let crates = Path::new(&engine).parent().expect("beside the other crates");
    for name in ["engine", "python", "cubecl-llvm"] {
        let folder = crates.join(name).join("src");
        let (mut there, mut named) = (BTreeSet::new(), BTreeSet::new());
        files(&folder, &mut there);
        follow(&folder.join("lib.rs"), &folder, &mut named);
        let lost: Vec<_> = there.difference(&named).collect();
        assert!(lost.is_empty(), "no mod names {lost:?}");
    }
}
