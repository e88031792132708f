//! Reads the files of a source directory by the rules and within the bounds of the controller, so that `check --source`
//! says what the controller will.

use std::{
    collections::HashSet,
    fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use mesh_k8s::source::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, is_hidden, is_yaml};

/// One file, or a directory that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Path relative to the source.
    pub(super) name: String,
    /// Its text, or why there is none.
    pub(super) content: Result<String, String>,
}

/// What one walk has seen.
#[derive(Default)]
struct Walk {
    /// Device and inode of each directory: links can make circles.
    visited: HashSet<(u64, u64)>,
    files: Vec<(String, PathBuf)>,
    unreadable: Vec<Found>,
}

/// Reads all YAML files, in the order of their names.
///
/// # Errors
/// When the directory itself cannot be read; everything below it is told as [`Found`].
pub(super) fn read(directory: &Path) -> io::Result<Vec<Found>> {
    let mut walk = Walk::default();
    walk.list(directory, "", 0)?;
    let mut found = walk.unreadable;
    let mut total = 0;
    for (index, (name, path)) in walk.files.into_iter().enumerate() {
        let content = match index {
            ..MAX_FILES => text(&path, &mut total),
            _ => Err(format!("the source has more than {MAX_FILES} files")),
        };
        found.push(Found { name, content });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

impl Walk {
    /// Lists YAML files. Names that begin with a dot are left out, as editors' temporary files and the directories
    /// behind a mounted ConfigMap.
    fn list(&mut self, directory: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        let meta = fs::metadata(directory)?;
        if depth > MAX_DEPTH || !self.visited.insert((meta.dev(), meta.ino())) {
            return Ok(());
        }
        let mut entries: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_hidden(&name) || self.files.len() > MAX_FILES {
                continue;
            }
            let path = entry.path();
            let relative = format!("{prefix}{name}");
            // Follows symbolic links; one that leads nowhere is no file.
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    if let Err(error) = self.list(&path, &format!("{relative}/"), depth + 1) {
                        let content = Err(format!("the directory cannot be read: {error}"));
                        self.unreadable.push(Found { name: relative, content });
                    }
                }
                Ok(meta) if meta.is_file() && is_yaml(&name) => self.files.push((relative, path)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The text of a file; `total` is what all files before it had, in bytes.
fn text(path: &Path, total: &mut u64) -> Result<String, String> {
    let why = |error: io::Error| format!("the file cannot be read: {error}");
    let bytes = fs::metadata(path).map_err(why)?.len();
    *total = total.saturating_add(bytes);
    if bytes > MAX_FILE_BYTES || *total > MAX_TOTAL_BYTES {
        return Err(format!(
            "the file cannot be read: it has {bytes} bytes; at most {MAX_FILE_BYTES} in a file and {MAX_TOTAL_BYTES} \
             in all are read"
        ));
    }
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(why)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(why)?;
    String::from_utf8(content).map_err(|_| "the file cannot be read: it is no UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Names, those of what cannot be read with the reason's end.
    fn summary(directory: &Path) -> Vec<String> {
        let line = |found: Found| match found.content {
            Ok(_) => found.name,
            Err(why) => format!("{}: {}", found.name, why.rsplit(": ").next().unwrap()),
        };
        read(directory).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn links_are_followed_and_circles_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("..data")).unwrap();
        fs::write(root.join("..data/a.yaml"), "a").unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        symlink(".", root.join("circle")).unwrap();
        symlink("nowhere", root.join("dangling.yaml")).unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        symlink("../sub", root.join("sub/again")).unwrap();
        fs::write(root.join("sub/b.yml"), "b").unwrap();
        fs::write(root.join("sub/notes.txt"), "no").unwrap();
        assert_eq!(summary(root), ["a.yaml", "sub/b.yml"]);
    }

    #[test]
    fn one_that_cannot_be_read_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("big.yaml"), vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
        fs::write(root.join("bytes.yaml"), [0xff, 0xfe]).unwrap();
        fs::write(root.join("good.yaml"), "").unwrap();
        assert_eq!(
            summary(root),
            [
                "big.yaml: it has 4194305 bytes; at most 4194304 in a file and 67108864 in all are read",
                "bytes.yaml: it is no UTF-8 text",
                "good.yaml"
            ]
        );
        assert!(read(&root.join("nothing")).is_err());
    }

    #[test]
    fn there_is_an_end_to_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_owned();
        for depth in 0..20 {
            fs::write(deep.join(format!("{depth:02}.yaml")), "").unwrap();
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        assert_eq!(read(dir.path()).unwrap().len(), MAX_DEPTH + 1);
        let dir = tempfile::tempdir().unwrap();
        // Of that size, without blocks on the disk.
        for n in 0..17 {
            fs::File::create(dir.path().join(format!("big{n:02}.yaml")))
                .unwrap()
                .set_len(MAX_FILE_BYTES)
                .unwrap();
        }
        let refused = read(dir.path()).unwrap().into_iter().filter(|found| found.content.is_err());
        assert_eq!(refused.map(|found| found.name).collect::<Vec<_>>(), ["big16.yaml"]);
    }
}
