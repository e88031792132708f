//! Reads the files of the source directory, within bounds.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Most files that are read.
const MAX_FILES: usize = 4096;
/// Largest file, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Largest sum of all files, in bytes.
const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// Deepest directory.
const MAX_DEPTH: usize = 16;
/// A file that changed so recently is read again even when its times and size are the same.
const RACY: Duration = Duration::from_secs(2);
/// A file that has become empty is taken for half written for so long.
const HALF_WRITTEN: Duration = Duration::from_millis(400);

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Its text.
    Text(Arc<str>),
    /// Why it cannot be read.
    Unreadable(String),
}

/// Files by their path relative to the directory.
pub(super) type Files = BTreeMap<Arc<str>, Content>;

/// Remembers what was read, so that only changes cost something.
pub(super) struct Scanner {
    directory: PathBuf,
    seen: BTreeMap<Arc<str>, (Stamp, Content)>,
    first: bool,
    gone: bool,
}

/// What tells that a file is the same as before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Scanner {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, seen: BTreeMap::new(), first: true, gone: false }
    }

    /// Reads what has changed. None when nothing has, or when the directory itself cannot be read: then its last state
    /// stays, for a directory that is being replaced must not empty the mesh.
    pub(super) fn scan(&mut self) -> Option<Files> {
        let mut paths = Vec::new();
        let mut visited = HashSet::new();
        if let Err(error) = list(&self.directory, "", 0, &mut visited, &mut paths) {
            if !self.gone {
                tracing::warn!(%error, directory = %self.directory.display(), "the source cannot be read; configuration stays");
            }
            self.gone = true;
            return None;
        }
        self.gone = false;
        let mut total = 0;
        let mut next = BTreeMap::new();
        for (index, (name, path)) in paths.into_iter().enumerate() {
            let entry = if index >= MAX_FILES {
                (None, Content::Unreadable(format!("the source has more than {MAX_FILES} files")))
            } else {
                self.read(&name, &path, &mut total)
            };
            // A file that vanished between listing and reading is simply gone.
            let (stamp, content) = match entry {
                (Some(stamp), content) => (stamp, content),
                (None, content @ Content::Unreadable(_)) => (Stamp::none(), content),
                (None, Content::Text(_)) => continue,
            };
            next.insert(name, (stamp, content));
        }
        let same = next.len() == self.seen.len()
            && next.iter().zip(&self.seen).all(|((n1, (_, c1)), (n2, (_, c2)))| n1 == n2 && c1 == c2);
        self.seen = next;
        if same && !self.first {
            return None;
        }
        self.first = false;
        Some(self.seen.iter().map(|(name, (_, content))| (Arc::clone(name), content.clone())).collect())
    }

    /// Reads one file. No stamp with a text means: gone.
    fn read(&self, name: &Arc<str>, path: &Path, total: &mut u64) -> (Option<Stamp>, Content) {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (None, Content::Text("".into())),
            Err(error) => return (None, Content::Unreadable(error.to_string())),
        };
        let stamp = Stamp::of(&meta);
        let before = self.seen.get(name);
        *total += stamp.bytes;
        if stamp.bytes > MAX_FILE_BYTES || *total > MAX_TOTAL_BYTES {
            let message = format!(
                "it has {} bytes; at most {MAX_FILE_BYTES} in a file and {MAX_TOTAL_BYTES} in all are read",
                stamp.bytes
            );
            return (Some(stamp), Content::Unreadable(message));
        }
        if let Some((old, content)) = before {
            if *old == stamp && stamp.age() > RACY {
                return (Some(stamp), content.clone());
            }
            let had_text = matches!(content, Content::Text(text) if !text.is_empty());
            if stamp.bytes == 0 && had_text && stamp.age() < HALF_WRITTEN {
                return (Some(Stamp::none()), content.clone());
            }
        }
        (Some(stamp), read_text(path))
    }
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), bytes: meta.len(), modified: meta.modified().ok() }
    }

    /// Equal to no file's.
    fn none() -> Self {
        Self { device: 0, inode: 0, bytes: u64::MAX, modified: None }
    }

    fn age(&self) -> Duration {
        self.modified.and_then(|t| SystemTime::now().duration_since(t).ok()).unwrap_or_default()
    }
}

fn read_text(path: &Path) -> Content {
    let read = fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    match read.map(String::from_utf8) {
        Ok(Ok(text)) => Content::Text(text.into()),
        Ok(Err(_)) => Content::Unreadable("it is no UTF-8 text".into()),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// Lists YAML files in order. Names that begin with a dot are left out: editors' temporary files, and the directories
/// behind the symbolic links of a mounted ConfigMap.
fn list(
    directory: &Path,
    prefix: &str,
    depth: usize,
    visited: &mut HashSet<(u64, u64)>,
    out: &mut Vec<(Arc<str>, PathBuf)>,
) -> io::Result<()> {
    let meta = fs::metadata(directory)?;
    if depth > MAX_DEPTH || !visited.insert((meta.dev(), meta.ino())) {
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || out.len() > MAX_FILES {
            continue;
        }
        let path = entry.path();
        let relative = format!("{prefix}{name}");
        // Follows symbolic links; one that leads nowhere is no file.
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                if let Err(error) = list(&path, &format!("{relative}/"), depth + 1, visited, out) {
                    tracing::warn!(%error, directory = %path.display(), "cannot read a directory of the source");
                }
            }
            Ok(meta) if meta.is_file() && is_yaml(&name) => out.push((relative.into(), path)),
            _ => {}
        }
    }
    Ok(())
}

fn is_yaml(name: &str) -> bool {
    matches!(Path::new(name).extension().and_then(|e| e.to_str()), Some("yaml" | "yml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &Files) -> Vec<&str> {
        files.keys().map(AsRef::as_ref).collect()
    }

    #[test]
    fn finds_yaml_files_and_notices_what_changes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (name, text) in [("b.yaml", "b"), ("sub/a.yml", "a"), ("notes.txt", "no"), (".b.yaml.swp", "no")]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut scanner = Scanner::new(dir.path().to_owned());
        assert_eq!(names(&scanner.scan().unwrap()), ["b.yaml", "sub/a.yml"]);
        assert_eq!(scanner.scan(), None);

        fs::write(dir.path().join("b.yaml"), "c").unwrap();
        assert_eq!(scanner.scan().unwrap()["b.yaml"], Content::Text("c".into()), "same size, same second");
        fs::write(dir.path().join("new"), "d").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("b.yaml")).unwrap();
        assert_eq!(scanner.scan().unwrap()["b.yaml"], Content::Text("d".into()), "replaced by rename");
        fs::remove_file(dir.path().join("b.yaml")).unwrap();
        assert_eq!(names(&scanner.scan().unwrap()), ["sub/a.yml"]);
    }

    #[test]
    fn an_empty_file_is_taken_for_half_written_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "text").unwrap();
        let mut scanner = Scanner::new(dir.path().to_owned());
        scanner.scan().unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(scanner.scan(), None);
        std::thread::sleep(HALF_WRITTEN + Duration::from_millis(50));
        assert_eq!(scanner.scan().unwrap()["a.yaml"], Content::Text("".into()));
    }

    #[test]
    fn links_are_followed_and_circles_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for version in ["..1", "..2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("a.yaml"), version).unwrap();
        }
        std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        std::os::unix::fs::symlink(".", root.join("circle")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling.yaml")).unwrap();
        let mut scanner = Scanner::new(root.to_owned());
        let files = scanner.scan().unwrap();
        assert_eq!(names(&files), ["a.yaml"]);
        assert_eq!(files["a.yaml"], Content::Text("..1".into()));
        std::os::unix::fs::symlink("..2", root.join("..next")).unwrap();
        fs::rename(root.join("..next"), root.join("..data")).unwrap();
        assert_eq!(scanner.scan().unwrap()["a.yaml"], Content::Text("..2".into()), "swapped link");
    }

    #[test]
    fn what_cannot_be_read_says_so_and_a_missing_directory_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("source");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("bytes.yaml"), [0xff, 0xfe]).unwrap();
        fs::write(root.join("big.yaml"), vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
        let mut scanner = Scanner::new(root.clone());
        let files = scanner.scan().unwrap();
        assert!(files.values().all(|content| matches!(content, Content::Unreadable(_))), "{files:?}");
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(scanner.scan(), None);
    }
}
