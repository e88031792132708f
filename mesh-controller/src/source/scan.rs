//! Reads the files of the source directory, within bounds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mesh_k8s::source::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, is_hidden, is_yaml};

/// A file that changed so recently is read again even when its times and size are the same.
const RACY: Duration = Duration::from_secs(2);
/// A file that has become empty is taken for half written for so long.
const HALF_WRITTEN: Duration = Duration::from_millis(400);
/// A file that is missing is taken for one that is being replaced for so long.
const REPLACING: Duration = Duration::from_millis(400);

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
    /// Since when files that still count are missing.
    missing: HashMap<Arc<str>, Instant>,
    /// Device and inode of the directory at the last scan.
    root: Option<(u64, u64)>,
    /// A file was taken for half written.
    half_written: bool,
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
        Self {
            directory,
            seen: BTreeMap::new(),
            missing: HashMap::new(),
            root: None,
            half_written: false,
            first: true,
            gone: false,
        }
    }

    /// Reads what has changed. None when nothing has, or when the directory itself cannot be read: then its last state
    /// stays, for a directory that is being replaced must not empty the mesh.
    pub(super) fn scan(&mut self) -> Option<Files> {
        let mut listing = Listing::default();
        if let Err(error) = list(&self.directory, "", 0, &mut listing) {
            if !self.gone {
                tracing::warn!(%error, directory = %self.directory.display(), "the source cannot be read; configuration stays");
            }
            self.gone = true;
            return None;
        }
        self.gone = false;
        self.half_written = false;
        let mut total = 0;
        let mut next = BTreeMap::new();
        for (index, (name, path)) in std::mem::take(&mut listing.files).into_iter().enumerate() {
            let read =
                if index >= MAX_FILES { Some(too_many()) } else { self.read(&name, &path, &mut total) };
            // A file that vanished between listing and reading is missing.
            if let Some(read) = read {
                next.insert(name, read);
            }
        }
        self.keep_unreadable(&listing, &mut next);
        self.keep_missing(listing.root, &mut next);
        let same = next.len() == self.seen.len()
            && next.iter().zip(&self.seen).all(|((n1, (_, c1)), (n2, (_, c2)))| n1 == n2 && c1 == c2);
        self.seen = next;
        if same && !self.first {
            return None;
        }
        self.first = false;
        Some(self.seen.iter().map(|(name, (_, content))| (Arc::clone(name), content.clone())).collect())
    }

    /// When to scan again at the latest, though nothing is heard; None: no matter.
    pub(super) fn again(&self) -> Option<Duration> {
        let longest = self.missing.values().map(|since| REPLACING.saturating_sub(since.elapsed()));
        let half_written = self.half_written.then_some(HALF_WRITTEN);
        longest.chain(half_written).min().map(|wait| wait + Duration::from_millis(5))
    }

    /// What could not be looked at is not deleted: files below it say that they cannot be read.
    fn keep_unreadable(&self, listing: &Listing, next: &mut BTreeMap<Arc<str>, (Stamp, Content)>) {
        for (place, error) in &listing.failed {
            let below = format!("{place}/");
            let mut kept: Vec<Arc<str>> =
                self.seen.keys().filter(|name| name.starts_with(&below)).cloned().collect();
            kept.push(Arc::clone(place));
            for name in kept {
                let why = Content::Unreadable(error.clone());
                next.entry(name).or_insert_with(|| (Stamp::none(), why));
            }
        }
        if listing.is_cut {
            for name in self.seen.keys().filter(|name| !next.contains_key(*name)).cloned().collect::<Vec<_>>()
            {
                if next.len() < 2 * MAX_FILES && fs::metadata(self.directory.join(&*name)).is_ok() {
                    next.insert(name, too_many());
                }
            }
        }
    }

    /// Editors and tools replace a file by deleting it first. So what is missing stays for a moment, unless it has
    /// another name now, or all of the directory was replaced.
    fn keep_missing(&mut self, root: Option<(u64, u64)>, next: &mut BTreeMap<Arc<str>, (Stamp, Content)>) {
        let is_same_root = self.root == root;
        self.root = root;
        let before = std::mem::take(&mut self.missing);
        for (name, (stamp, content)) in &self.seen {
            // What was empty cannot be missed.
            if next.contains_key(name) || !is_same_root || *content == Content::Text("".into()) {
                continue;
            }
            let since = before.get(name).copied().unwrap_or_else(Instant::now);
            let is_moved = next.iter().any(|(other, (at, text))| {
                !self.seen.contains_key(other) && (at.is_same_file(stamp) || text == content)
            });
            if since.elapsed() < REPLACING && !is_moved {
                self.missing.insert(Arc::clone(name), since);
            }
        }
        for name in self.missing.keys() {
            if let Some((stamp, content)) = self.seen.get(name) {
                next.insert(Arc::clone(name), (stamp.clone(), content.clone()));
            }
        }
    }

    /// Reads one file; None: it is missing.
    fn read(&mut self, name: &Arc<str>, path: &Path, total: &mut u64) -> Option<(Stamp, Content)> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some((Stamp::none(), Content::Unreadable(error.to_string()))),
        };
        let stamp = Stamp::of(&meta);
        *total += stamp.bytes;
        if stamp.bytes > MAX_FILE_BYTES || *total > MAX_TOTAL_BYTES {
            let message = format!(
                "it has {} bytes; at most {MAX_FILE_BYTES} in a file and {MAX_TOTAL_BYTES} in all are read",
                stamp.bytes
            );
            return Some((stamp, Content::Unreadable(message)));
        }
        if let Some((old, content)) = self.seen.get(name) {
            if *old == stamp && stamp.age() > RACY {
                return Some((stamp, content.clone()));
            }
            let had_text = matches!(content, Content::Text(text) if !text.is_empty());
            if stamp.bytes == 0 && had_text && stamp.age() < HALF_WRITTEN {
                self.half_written = true;
                return Some((Stamp::none(), content.clone()));
            }
        }
        Some((stamp, read_text(path)?))
    }
}

fn too_many() -> (Stamp, Content) {
    (Stamp::none(), Content::Unreadable(format!("the source has more than {MAX_FILES} files")))
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), bytes: meta.len(), modified: meta.modified().ok() }
    }

    /// Equal to no file's.
    fn none() -> Self {
        Self { device: 0, inode: 0, bytes: u64::MAX, modified: None }
    }

    /// Whether it is the same file under another name.
    fn is_same_file(&self, other: &Self) -> bool {
        *self != Self::none() && (self.device, self.inode) == (other.device, other.inode)
    }

    fn age(&self) -> Duration {
        self.modified.and_then(|t| SystemTime::now().duration_since(t).ok()).unwrap_or_default()
    }
}

/// None: it is missing.
fn read_text(path: &Path) -> Option<Content> {
    let read = fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    match read.map(String::from_utf8) {
        Ok(Ok(text)) => Some(Content::Text(text.into())),
        Ok(Err(_)) => Some(Content::Unreadable("it is no UTF-8 text".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Content::Unreadable(error.to_string())),
    }
}

/// What a directory holds.
#[derive(Default)]
struct Listing {
    files: Vec<(Arc<str>, PathBuf)>,
    /// Files and directories that could not be looked at, and why.
    failed: Vec<(Arc<str>, String)>,
    visited: HashSet<(u64, u64)>,
    /// Device and inode of the directory.
    root: Option<(u64, u64)>,
    /// There are more files than are listed.
    is_cut: bool,
}

/// Lists YAML files in order. Names that begin with a dot are left out: editors' temporary files, and the directories
/// behind the symbolic links of a mounted ConfigMap.
fn list(directory: &Path, prefix: &str, depth: usize, out: &mut Listing) -> io::Result<()> {
    let meta = fs::metadata(directory)?;
    let identity = (meta.dev(), meta.ino());
    out.root.get_or_insert(identity);
    if depth > MAX_DEPTH || !out.visited.insert(identity) {
        return Ok(());
    }
    let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_hidden(&name) {
            continue;
        }
        if out.files.len() + out.failed.len() > MAX_FILES {
            out.is_cut = true;
            return Ok(());
        }
        let path = entry.path();
        let relative: Arc<str> = format!("{prefix}{name}").into();
        // Follows symbolic links; one that leads nowhere is no file.
        let looked = fs::metadata(&path).and_then(|meta| {
            if meta.is_dir() {
                return list(&path, &format!("{relative}/"), depth + 1, out);
            }
            if meta.is_file() && is_yaml(&name) {
                out.files.push((Arc::clone(&relative), path));
            }
            Ok(())
        });
        if let Err(error) = looked
            && error.kind() != io::ErrorKind::NotFound
        {
            out.failed.push((relative, error.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
